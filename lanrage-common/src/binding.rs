//! STUN messages by which a member binds to a relay.
