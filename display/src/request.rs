//! Requests of other threads to the event loop.

/// What other threads ask of the event loop.
#[derive(Debug)]
pub(crate) enum EventLoopRequest {
    /// The mode of some scanout has changed, or a keyboard LED: update the titles.
    Retitle,
    SetStatus(String),
    Resize {
        scanout: usize,
        width: u32,
        height: u32,
    },
    /// Open the window of this scanout, if it is closed.
    Plug(usize),
    /// Close the window of this scanout, if it is open.
    Unplug(usize),
    /// The guest has changed the cursor of this scanout, and the pointer is over its window.
    Cursor(usize),
    /// A presenter of this scanout has ended.
    PresenterEnded {
        scanout: usize,
        number: u64,
    },
    /// A guest has connected or disconnected.
    GuestChanged,
    /// Show the windows, if they are hidden.
    Show,
    /// Hide the windows.
    Hide,
    /// The user has activated the application: only macOS says so.
    #[cfg_attr(
        not(target_os = "macos"),
        expect(dead_code, reason = "only Macs say so")
    )]
    Activated,
    Quit,
}
