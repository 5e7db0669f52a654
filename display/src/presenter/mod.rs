//! Presenters: what draws a scanout into its window.
//!
//! There are two, chosen by [`Presenters`]: [`vulkan`], and [`cpu`] where Vulkan cannot present.
//! Each runs on a thread of its own ([`Thread`]), because presenting may block until the next
//! refresh. A presenter lives as long as its surface: when surface or device are lost its thread
//! ends with the reason ([`End`]), and the main thread starts another.

mod cpu;
mod restart_policy;
mod vulkan;

use std::fmt;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Instant;

use winit::event_loop::EventLoopProxy;
use winit::window::Window;

use self::restart_policy::Recovery;
use crate::DisplayError;
use crate::display::Shared;
use crate::event_loop::Command;
use crate::options::{DisplayOptions, Renderer};
use crate::platform::FrameClock;
use crate::scanout::{Job, Next, Scanout};
use crate::statistics::Meter;

/// Draws jobs into one window.
trait Presenter: Send {
    /// What draws, for a person.
    fn name(&self) -> String;

    /// Whether the window is there to be seen, and not minimised.
    fn is_mapped(&self) -> bool;

    /// Draws a frame to the window (when the job says so) and to the job's screenshots. Calls
    /// `presenting` right before the frame is handed to the window system. The guest's memory is
    /// no longer read when it returns.
    fn frame(&mut self, job: &mut Job, presenting: &dyn Fn()) -> Result<Frame, End>;
}

/// What became of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Frame {
    /// The damage has been copied.
    pub(crate) copied: bool,
    /// The window system has taken the frame.
    pub(crate) presented: bool,
}

impl Frame {
    /// Nothing was drawn: the window has no room for a frame now.
    pub(crate) const NONE: Frame = Frame {
        copied: false,
        presented: false,
    };
}

/// Why a presenter ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// It was told to.
    Stopped,
    /// The window's surface is gone, though the window is not.
    SurfaceLost,
    /// The GPU with this serial number does not answer any more.
    DeviceLost { gpu: u32 },
    /// Anything else.
    Failed(String),
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stopped => f.write_str("the presenter was stopped"),
            Self::SurfaceLost => f.write_str("the Vulkan surface is lost"),
            Self::DeviceLost { .. } => f.write_str("the Vulkan device is lost"),
            Self::Failed(reason) => write!(f, "the presenter failed: {reason}"),
        }
    }
}

/// A running presenter.
pub(crate) struct Thread {
    /// Tells it from those before and after it: a window's threads end late.
    pub(crate) number: u64,
    handle: JoinHandle<(End, Box<dyn Presenter>)>,
}

impl Thread {
    /// Waits for its end. What it drew with is freed here, on the main thread.
    pub(crate) fn join(self) -> End {
        match self.handle.join() {
            Ok((end, _presenter)) => end,
            Err(_) => End::Failed("its thread panicked".to_owned()),
        }
    }
}

/// Makes presenters, and remembers what has failed.
pub(crate) struct Presenters {
    recovery: Recovery,
    vulkan: vulkan::Vulkan,
    options: DisplayOptions,
    proxy: EventLoopProxy<Command>,
    started: u64,
}

impl Presenters {
    pub(crate) fn new(options: &DisplayOptions, proxy: EventLoopProxy<Command>) -> Presenters {
        Presenters {
            recovery: Recovery::new(options.renderer),
            vulkan: vulkan::Vulkan::default(),
            options: options.clone(),
            proxy,
            started: 0,
        }
    }

    /// Starts a presenter for a window.
    pub(crate) fn start(
        &mut self,
        shared: &Arc<Shared>,
        scanout: usize,
        window: &Arc<Window>,
    ) -> Result<Thread, DisplayError> {
        let no_presenter = |reason| DisplayError::NoPresenter { scanout, reason };
        if self.recovery.is_hopeless() {
            return Err(no_presenter("it fails again and again".to_owned()));
        }
        let clock = FrameClock::new(window).map_err(|error| no_presenter(error.to_string()))?;
        let presenter = self.make(scanout, window).map_err(no_presenter)?;
        let (shared, proxy) = (shared.clone(), self.proxy.clone());
        self.started += 1;
        let number = self.started;
        let work = move || {
            // Told even when drawing panics.
            let _ended = Ended {
                scanout,
                number,
                proxy,
            };
            let mut presenter = presenter;
            let end = shared
                .scanouts
                .get(scanout)
                .map_or(End::Stopped, |scanout| {
                    draw(scanout, &clock, presenter.as_mut())
                });
            (end, presenter)
        };
        std::thread::Builder::new()
            .name(format!("window {scanout}"))
            .spawn(work)
            .map(|handle| Thread { number, handle })
            .map_err(|error| no_presenter(format!("no thread: {error}")))
    }

    fn make(&mut self, scanout: usize, window: &Arc<Window>) -> Result<Box<dyn Presenter>, String> {
        let mut reasons = String::new();
        let renderer = self.recovery.renderer();
        if renderer != Renderer::Cpu {
            let device = self.recovery.device();
            match self.vulkan.presenter(window, &self.options, device) {
                Ok(presenter) => {
                    log::info!(
                        "window {scanout}: drawn by Vulkan on {}",
                        presenter.gpu_name()
                    );
                    return Ok(Box::new(presenter));
                }
                Err(reason) => reasons = format!("Vulkan: {reason}; "),
            }
            if renderer == Renderer::Vulkan {
                return Err(reasons);
            }
            log::warn!("window {scanout}: drawn by the CPU, which is slower: {reasons}");
        }
        match cpu::CpuPresenter::new(window, self.options.scaling) {
            Ok(presenter) => Ok(Box::new(presenter)),
            Err(reason) => Err(format!("{reasons}CPU: {reason}")),
        }
    }

    /// Learns from a presenter's end.
    pub(crate) fn note(&mut self, end: &End) {
        self.recovery.note(end, Instant::now());
    }

    /// Gives the GPU back. All presenters must have ended.
    pub(crate) fn close(&mut self) {
        self.vulkan = vulkan::Vulkan::default();
    }
}

/// Tells the main thread that a presenter has ended.
struct Ended {
    scanout: usize,
    number: u64,
    proxy: EventLoopProxy<Command>,
}

impl Drop for Ended {
    fn drop(&mut self) {
        // Failing means that the event loop has ended too, and knows.
        let _ = self.proxy.send_event(Command::PresenterEnded {
            scanout: self.scanout,
            number: self.number,
        });
    }
}

/// The presenter thread's life.
fn draw(scanout: &Scanout, clock: &FrameClock, presenter: &mut dyn Presenter) -> End {
    scanout.set_drawn_by(&presenter.name());
    let _attached = scanout.attach(clock.gate());
    let mut job = scanout.job();
    let mut meter = Meter::new(Instant::now());
    loop {
        match scanout.next(&mut job) {
            Next::Stop => return End::Stopped,
            Next::AskForFrame => clock.ask(),
            Next::Draw => {
                if job.present && !presenter.is_mapped() {
                    job.present = false;
                    scanout.set_mapped(false);
                    // It may have come back before the scanout heard that it was gone.
                    if presenter.is_mapped() {
                        scanout.set_mapped(true);
                    }
                    if job.shots.is_empty() {
                        scanout.finish(&mut job, Frame::NONE);
                        continue;
                    }
                }
                let started = Instant::now();
                let recorder = scanout.recorder().filter(|_| job.present);
                job.shots
                    .extend(recorder.and_then(|recorder| recorder.reply()));
                match presenter.frame(&mut job, &|| clock.about_to_present()) {
                    Ok(frame) => {
                        let latency = scanout.finish(&mut job, frame);
                        if frame.presented {
                            meter.note(started.elapsed(), latency);
                        }
                    }
                    Err(end) => {
                        for shot in job.shots.drain(..) {
                            // Failing means that nobody waits for the screenshot any more.
                            let _ = shot.try_send(Err(end.to_string()));
                        }
                        return end;
                    }
                }
                let now = Instant::now();
                if !scanout.has_overlay() {
                    meter = Meter::new(now);
                } else if let Some(figures) = meter.figures(now) {
                    scanout.set_figures(&figures);
                }
            }
        }
    }
}
