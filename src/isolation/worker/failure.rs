//! [`Failure`]: why a worker ends before it is told to.

use super::super::channel::ReceiveError;
use super::super::encoding::Malformed;

/// The reason.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    /// There can be no context. The main process was told why.
    #[error("it cannot serve")]
    Unable,
    /// The main process is gone, or breaks the rules.
    #[error(transparent)]
    Receive(#[from] ReceiveError),
    /// The main process sent what is no message.
    #[error("the main process sent {0}")]
    Malformed(#[from] Malformed),
    /// The main process sent a message at the wrong time.
    #[error("the main process broke the order of messages: {0}")]
    Order(&'static str),
}

impl Failure {
    /// Whether somebody is there who does not know it yet.
    pub(super) fn is_news(&self) -> bool {
        !matches!(self, Self::Unable | Self::Receive(ReceiveError::Closed))
    }
}
