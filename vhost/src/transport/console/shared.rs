//! What the thread of the GPU socket shares with the callers of the screen.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, Weak};

use hesper_system::sync::Lock;

use super::state::Scanouts;
use super::wire::{DisplayInfo, Edid};
use crate::device::Device;
use crate::screen::{FlushToken, ScanoutId};
use crate::transport::interrupt::Interrupt;

/// The state, and how to wait for answers.
#[derive(Default)]
pub(super) struct Shared {
    pub(super) state: Mutex<ConsoleState>,
    /// Signalled when a question is answered, or never will be.
    pub(super) answered: Condvar,
    pub(super) device: Mutex<Weak<Device>>,
}

#[derive(Default)]
pub(super) struct ConsoleState {
    pub(super) scanouts: Scanouts,
    /// The thread's wake-up, while there is a connection.
    pub(super) link: Option<Arc<Interrupt>>,
    /// There was a connection at some time.
    pub(super) used: bool,
    /// The thread sleeps until woken.
    pub(super) asleep: bool,
    /// QEMU waits for us: nothing may wait for QEMU.
    pub(super) paused: bool,
    pub(super) question: Option<(u64, Question)>,
    pub(super) answer: Option<(u64, Answer)>,
    pub(super) questions_asked: u64,
}

impl ConsoleState {
    /// Wakes the thread, if it sleeps, because something changed.
    pub(super) fn wake(&mut self) {
        if let (true, Some(link)) = (std::mem::take(&mut self.asleep), &self.link) {
            link.raise();
        }
    }
}

/// Something to ask QEMU.
#[derive(Clone, Copy)]
pub(super) enum Question {
    Displays,
    Edid(ScanoutId),
}

/// What QEMU answered.
pub(super) enum Answer {
    Displays(Box<DisplayInfo>),
    Edid(Box<Edid>),
    /// It did not answer.
    Nothing,
}

impl Shared {
    pub(super) fn lock(&self) -> MutexGuard<'_, ConsoleState> {
        self.state.locked()
    }

    /// Tells the device that the pixels of these flushes were read.
    pub(super) fn release(&self, tokens: &mut Vec<FlushToken>) {
        if tokens.is_empty() {
            return;
        }
        let device = self.device.locked().upgrade();
        for token in tokens.drain(..) {
            if let Some(device) = &device {
                device.flush_done(token);
            }
        }
    }

    pub(super) fn release_all(&self) {
        let mut tokens = Vec::new();
        self.lock().scanouts.take_tokens(&mut tokens);
        self.release(&mut tokens);
    }
}
