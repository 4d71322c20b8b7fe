//! The request to stop, as every task of the daemon receives it.

use tokio::sync::watch;

/// Asks all holders of the matching [`Shutdown`] to stop; dropping it asks too.
#[derive(Debug)]
pub struct ShutdownTrigger(watch::Sender<bool>);

/// Cheap to clone; completes once the process should stop.
#[derive(Debug, Clone)]
pub struct Shutdown(watch::Receiver<bool>);

/// A trigger and its listener.
pub fn channel() -> (ShutdownTrigger, Shutdown) {
    let (sender, receiver) = watch::channel(false);
    (ShutdownTrigger(sender), Shutdown(receiver))
}

impl ShutdownTrigger {
    /// Asks everybody to stop.
    pub fn request(&self) {
        self.0.send_replace(true);
    }
}

impl Shutdown {
    /// Waits until stopping is requested. Cancel safe; returns at once when it already was.
    pub async fn requested(&self) {
        let mut receiver = self.0.clone();
        // An error means that the trigger is gone, which is a request as well.
        let _ = receiver.wait_for(|stop| *stop).await;
    }

    /// Whether stopping was requested.
    pub fn is_requested(&self) -> bool {
        *self.0.borrow() || self.0.has_changed().is_err()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn request_and_drop_both_stop() {
        let (trigger, shutdown) = channel();
        assert!(!shutdown.is_requested());
        trigger.request();
        shutdown.requested().await;
        assert!(shutdown.is_requested());

        let (trigger, shutdown) = channel();
        drop(trigger);
        shutdown.requested().await;
        assert!(shutdown.is_requested());
    }
}
