//! What other threads ask of the event loop.

/// What other threads ask of the event loop.
#[derive(Debug)]
pub(crate) enum EventLoopRequest {
    /// The mode of some scanout has changed, or a LED.
    Retitle,
    SetStatus(String),
    Resize {
        scanout: usize,
        width: u32,
        height: u32,
    },
    /// Open the window of this scanout, if it is closed.
    Plug(usize),
    /// Close it, if it is open.
    Unplug(usize),
    /// The guest has changed the cursor of this scanout, over which the pointer is.
    Cursor(usize),
    /// A presenter of this scanout has ended.
    PresenterEnded {
        scanout: usize,
        number: u64,
    },
    /// A guest is there from now on, or is gone.
    GuestChanged,
    /// Show the windows, if they are hidden.
    Show,
    /// Hide them.
    Hide,
    /// A Mac's person wants to see the application.
    #[cfg_attr(
        not(target_os = "macos"),
        expect(dead_code, reason = "only Macs say so")
    )]
    Activated,
    Quit,
}
