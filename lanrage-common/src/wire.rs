//! Checked packet views.
