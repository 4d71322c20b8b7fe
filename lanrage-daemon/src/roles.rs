//! Starts the roles that a process runs and joins them.
