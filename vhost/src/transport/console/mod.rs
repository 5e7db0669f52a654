//! A screen drawn by QEMU: the GPU socket of the classic devices `vhost-user-gpu-pci` and
//! `vhost-user-vga` (QEMU, docs/interop/vhost-user-gpu.rst).
//!
//! A program makes a [`GpuSocketScreen`] and gives it to the device as its screen and to the
//! transport as the backend's console. The transport connects it when QEMU sends the socket
//! (`GPU_SET_SOCKET`), and may do so again. Unconnected it is a screen that shows nothing.
//!
//! # Who waits for whom
//!
//! One thread owns the socket. The device's calls only note what changed (`state`) and wake this
//! thread. So no queue thread waits for QEMU to take pixels, however long its main loop is busy
//! elsewhere.
//!
//! Two things do wait. A guest's flush with a token is answered when its pixels were copied, and
//! before that the thread may be stuck in sending an earlier frame. And
//! [`GpuSocketScreen::monitors`] and [`GpuSocketScreen::edid`] need QEMU's answer. Both would be
//! deadlocks while QEMU waits for us to stop a queue. So the transport then calls `pause`, which
//! answers all flushes and ends waiting questions without an answer. Questions also have a
//! deadline.

mod link;
mod pixels;
mod shared;
mod state;
mod wire;

use std::io;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use hesper_system::sync::{Lock, Wait};

use super::interrupt::Interrupt;
use crate::device::Device;
use crate::screen::{
    CursorImage, FlushState, FlushToken, Monitor, Picture, Rect, ScanoutId, ScanoutSink,
};
use link::Link;
use shared::{Answer, Question, Shared};

/// Limits the lines that a guest or its VM monitor can cause.
static LINES: hesper_system::LogLimit = hesper_system::LogLimit::new("hesper_vhost");

/// How long a question to QEMU may take.
const QUESTION_TIMEOUT: Duration = Duration::from_secs(1);

/// QEMU reports no refresh rate on this socket; its EDID does.
const REFRESH_MHZ: u32 = 60_000;

/// A screen that QEMU's own console shows; see the module.
#[derive(Default)]
pub struct GpuSocketScreen {
    shared: Arc<Shared>,
    thread: Mutex<Option<Thread>>,
    /// Held by the queue thread that asks QEMU something.
    asking: Mutex<()>,
}

struct Thread {
    stop: Arc<Interrupt>,
    handle: JoinHandle<()>,
}

impl GpuSocketScreen {
    /// A screen that is not connected yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether QEMU has sent its socket, so that this screen is its console.
    pub fn is_used(&self) -> bool {
        self.shared.lock().used
    }

    /// Sets the device whose flushes these are.
    pub(super) fn set_device(&self, device: &Arc<Device>) {
        *self.shared.device.locked() = Arc::downgrade(device);
    }

    /// Shows everything over `socket` from now on. A previous one is closed.
    pub(super) fn connect(&self, socket: UnixStream) -> io::Result<()> {
        self.disconnect();
        let stop = Arc::new(Interrupt::new()?);
        let wake = Arc::new(Interrupt::new()?);
        {
            let mut state = self.shared.lock();
            state.link = Some(wake.clone());
            state.used = true;
            state.scanouts.forget_told();
        }
        let link = Link::new(socket, stop.clone(), wake, self.shared.clone());
        let spawned = std::thread::Builder::new()
            .name("gpu-socket".into())
            .spawn(move || link.run());
        match spawned {
            Ok(handle) => {
                *self.thread.locked() = Some(Thread { stop, handle });
                Ok(())
            }
            Err(error) => {
                self.shared.lock().link = None;
                Err(error)
            }
        }
    }

    /// Ends the connection and its thread.
    pub(super) fn disconnect(&self) {
        let thread = self.thread.locked().take();
        if let Some(thread) = thread {
            thread.stop.raise();
            if let Some(wake) = &self.shared.lock().link {
                wake.raise();
            }
            if thread.handle.join().is_err() {
                log::error!(
                    "the thread of the GPU socket panicked; this is a bug in Hesper, please report it"
                );
            }
        }
    }

    /// From now until [`Self::resume`] nothing waits for QEMU.
    pub(super) fn pause(&self) {
        self.shared.lock().paused = true;
        self.shared.answered.notify_all();
        self.shared.release_all();
    }

    /// Undoes [`Self::pause`].
    pub(super) fn resume(&self) {
        self.shared.lock().paused = false;
    }

    fn ask(&self, question: Question) -> Answer {
        let _asking = self.asking.locked();
        let deadline = Instant::now() + QUESTION_TIMEOUT;
        let mut state = self.shared.lock();
        state.questions_asked += 1;
        let number = state.questions_asked;
        state.question = Some((number, question));
        state.wake();
        loop {
            match state.answer.take() {
                Some((of, answer)) if of == number => return answer,
                _ => {}
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                LINES.log(
                    log::Level::Warn,
                    format_args!(
                        "QEMU did not answer on the GPU socket within {QUESTION_TIMEOUT:?}"
                    ),
                );
            }
            if state.link.is_none() || state.paused || left.is_zero() {
                // The thread may not have taken the question yet. Nobody waits for its answer any
                // more.
                state.question = None;
                return Answer::Nothing;
            }
            state = self.shared.answered.waited_for(state, left).0;
        }
    }
}

impl Drop for GpuSocketScreen {
    fn drop(&mut self) {
        self.disconnect();
    }
}

impl ScanoutSink for GpuSocketScreen {
    fn set_scanout(&self, scanout: ScanoutId, picture: Option<&Picture>) {
        let mut state = self.shared.lock();
        state.scanouts.set_picture(scanout, picture);
        state.wake();
    }

    fn flush(&self, scanout: ScanoutId, damage: Rect, done: Option<FlushToken>) -> FlushState {
        let mut state = self.shared.lock();
        // What is on a scanout is sent whole as soon as there is a connection.
        if state.link.is_none() {
            return FlushState::Done;
        }
        let token = done.filter(|_| !state.paused);
        if !state.scanouts.add_damage(scanout, damage, token) {
            return FlushState::Done;
        }
        state.wake();
        match token {
            Some(_) => FlushState::Pending,
            None => FlushState::Done,
        }
    }

    fn set_cursor(&self, scanout: ScanoutId, cursor: Option<&CursorImage>, x: u32, y: u32) {
        let mut state = self.shared.lock();
        state.scanouts.set_cursor(scanout, cursor, x, y);
        state.wake();
    }

    fn move_cursor(&self, scanout: ScanoutId, x: u32, y: u32) {
        let mut state = self.shared.lock();
        state.scanouts.move_cursor(scanout, x, y);
        state.wake();
    }

    fn monitors(&self) -> Option<Vec<Monitor>> {
        let Answer::Displays(info) = self.ask(Question::Displays) else {
            return None;
        };
        let monitor = |display: &wire::Display| Monitor {
            connected: display.enabled != 0,
            width: display.width,
            height: display.height,
            refresh_mhz: REFRESH_MHZ,
            width_mm: 0,
            height_mm: 0,
            place: i32::try_from(display.x).unwrap_or(i32::MAX),
        };
        Some(info.displays.iter().map(monitor).collect())
    }

    fn edid(&self, scanout: ScanoutId) -> Option<Vec<u8>> {
        let Answer::Edid(edid) = self.ask(Question::Edid(scanout)) else {
            return None;
        };
        edid.bytes
            .get(..usize::try_from(edid.size).ok()?)
            .map(<[u8]>::to_vec)
    }
}
