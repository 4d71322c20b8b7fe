//! The lab and shared fixtures of LANrage tests.
