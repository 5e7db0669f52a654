//! A renderer for tests.

use std::time::Duration;

use hesper_venus::{Renderer, RendererOptions};

/// How long contexts may take to end.
const PATIENCE: Duration = Duration::from_secs(60);

/// A renderer that outlives its contexts. The process of a test must not exit while the driver is
/// still called.
pub struct Settled(Renderer);

impl Settled {
    /// Panics on a host without a driver, with the remedy.
    pub fn new(options: RendererOptions) -> Self {
        Self(Renderer::new(options).expect(
            "a driver; for lavapipe: CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_RUNNER=tests/env/run cargo test",
        ))
    }
}

impl std::ops::Deref for Settled {
    type Target = Renderer;
    fn deref(&self) -> &Renderer {
        &self.0
    }
}

impl Drop for Settled {
    fn drop(&mut self) {
        if !self.0.settle(PATIENCE) && !std::thread::panicking() {
            panic!("a context does not end: {:?}", self.0.counters());
        }
    }
}
