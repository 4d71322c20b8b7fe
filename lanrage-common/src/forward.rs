//! The pure forwarding plan that kernel, userspace and tests share.
