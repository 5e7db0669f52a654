//! The presenters' threads: starts them, and draws the frames of their scanouts.

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Instant;

use winit::event_loop::EventLoopProxy;
use winit::window::Window;

use super::cpu::CpuPresenter;
use super::restart_policy::RestartPolicy;
use super::vulkan::Vulkan;
use super::{Presenter, PresenterEnd};
use crate::DisplayError;
use crate::frame::FrameOutcome;
use crate::options::{DisplayOptions, Renderer};
use crate::platform::FrameClock;
use crate::request::EventLoopRequest;
use crate::scanout::{Gate, Next, Scanout};
use crate::shared::Shared;
use crate::statistics::Meter;

/// A running presenter.
pub(crate) struct PresenterThread {
    /// Tells this presenter from those before and after it: the main thread may hear late of an
    /// end.
    pub(crate) number: u64,
    handle: JoinHandle<(PresenterEnd, Box<dyn Presenter>)>,
}

impl PresenterThread {
    /// Waits for the thread's end. The presenter is freed here, on the main thread.
    pub(crate) fn join(self) -> PresenterEnd {
        match self.handle.join() {
            Ok((end, _presenter)) => end,
            Err(_) => PresenterEnd::Failed("its thread panicked".to_owned()),
        }
    }
}

/// Starts presenters, and keeps what they share.
pub(crate) struct Presenters {
    restarts: RestartPolicy,
    vulkan: Vulkan,
    options: DisplayOptions,
    proxy: EventLoopProxy<EventLoopRequest>,
    started: u64,
}

impl Presenters {
    pub(crate) fn new(
        options: &DisplayOptions,
        proxy: EventLoopProxy<EventLoopRequest>,
    ) -> Presenters {
        Presenters {
            restarts: RestartPolicy::new(options.renderer),
            vulkan: Vulkan::default(),
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
    ) -> Result<PresenterThread, DisplayError> {
        let no_presenter = |reason| DisplayError::NoPresenter { scanout, reason };
        if self.restarts.is_hopeless() {
            return Err(no_presenter("presenters have failed too often".to_owned()));
        }
        let clock = FrameClock::new(window).map_err(|error| no_presenter(error.to_string()))?;
        let presenter = self.make(scanout, window).map_err(no_presenter)?;
        let (shared, proxy) = (shared.clone(), self.proxy.clone());
        self.started += 1;
        let number = self.started;
        let work = move || {
            // Sent even when drawing panics.
            let _ended = Ended {
                scanout,
                number,
                proxy,
            };
            let mut presenter = presenter;
            let end = shared
                .scanouts
                .get(scanout)
                .map_or(PresenterEnd::Stopped, |scanout| {
                    draw(scanout, &clock, presenter.as_mut())
                });
            (end, presenter)
        };
        std::thread::Builder::new()
            .name(format!("window {scanout}"))
            .spawn(work)
            .map(|handle| PresenterThread { number, handle })
            .map_err(|error| no_presenter(format!("cannot start a thread: {error}")))
    }

    fn make(&mut self, scanout: usize, window: &Arc<Window>) -> Result<Box<dyn Presenter>, String> {
        let mut reasons = String::new();
        let renderer = self.restarts.renderer();
        if renderer != Renderer::Cpu {
            let device = self.restarts.device();
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
        match CpuPresenter::new(window, self.options.scaling) {
            Ok(presenter) => Ok(Box::new(presenter)),
            Err(reason) => Err(format!("{reasons}CPU: {reason}")),
        }
    }

    /// Counts a presenter's end, so that the next one may draw in another way.
    pub(crate) fn note(&mut self, end: &PresenterEnd) {
        self.restarts.note(end, Instant::now());
    }

    /// Closes the GPU. All presenters must have ended.
    pub(crate) fn close(&mut self) {
        self.vulkan = Vulkan::default();
    }
}

/// Tells the main thread that a presenter has ended.
struct Ended {
    scanout: usize,
    number: u64,
    proxy: EventLoopProxy<EventLoopRequest>,
}

impl Drop for Ended {
    fn drop(&mut self) {
        // Failing means that the event loop has ended, too.
        let _ = self.proxy.send_event(EventLoopRequest::PresenterEnded {
            scanout: self.scanout,
            number: self.number,
        });
    }
}

/// Draws a scanout's frames until the presenter must stop.
fn draw(scanout: &Scanout, clock: &FrameClock, presenter: &mut dyn Presenter) -> PresenterEnd {
    scanout.set_presenter_name(&presenter.name());
    let gate = if clock.is_asked_for_frames() {
        Gate::Open
    } else {
        Gate::Free
    };
    let _attached = scanout.attach(gate);
    let mut frame = scanout.new_frame();
    let mut meter = Meter::new(Instant::now());
    loop {
        match scanout.next(&mut frame) {
            Next::Stop => return PresenterEnd::Stopped,
            Next::AskForFrame => clock.ask(),
            Next::Draw => {
                if frame.present && !presenter.is_mapped() {
                    frame.present = false;
                    scanout.set_mapped(false);
                    // The window may have come back before the scanout heard that it was minimised.
                    if presenter.is_mapped() {
                        scanout.set_mapped(true);
                    }
                    if frame.image_replies.is_empty() {
                        scanout.finish(&mut frame, FrameOutcome::NONE);
                        continue;
                    }
                }
                let started = Instant::now();
                let recorder = scanout.recorder().filter(|_| frame.present);
                frame
                    .image_replies
                    .extend(recorder.and_then(|recorder| recorder.reply()));
                match presenter.draw(&mut frame, &|| clock.about_to_present()) {
                    Ok(outcome) => {
                        let latency = scanout.finish(&mut frame, outcome);
                        if outcome.presented {
                            meter.note(started.elapsed(), latency);
                        }
                    }
                    Err(end) => {
                        for shot in frame.image_replies.drain(..) {
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
