//! Why a packet left the fast path: verdict, counter and test row at once.
