//! Reports when the user activates the application, by a click on its icon in the Dock or with
//! Cmd-Tab.
//!
//! AppKit also tells the application's delegate, but winit 0.30 needs the delegate to be its own.

use objc2::rc::Retained;
use objc2::{ClassType, DeclaredClass, declare_class, msg_send_id, mutability, sel};
use objc2_app_kit::NSApplicationDidBecomeActiveNotification;
use objc2_foundation::{MainThreadMarker, NSNotification, NSNotificationCenter, NSObject};
use winit::event_loop::EventLoopProxy;

use crate::request::EventLoopRequest;

declare_class!(
    struct Observer;

    // SAFETY: NSObject has no rules for its subclasses, and this one does not implement Drop.
    unsafe impl ClassType for Observer {
        type Super = NSObject;
        type Mutability = mutability::MainThreadOnly;
        const NAME: &'static str = "HesperActivationObserver";
    }

    impl DeclaredClass for Observer {
        type Ivars = EventLoopProxy<EventLoopRequest>;
    }

    unsafe impl Observer {
        #[method(activated:)]
        fn activated(&self, _: &NSNotification) {
            // Failing means that the event loop has ended.
            let _ = self.ivars().send_event(EventLoopRequest::Activated);
        }
    }
);

/// Sends [`EventLoopRequest::Activated`] for as long as it lives.
pub(super) struct Watch(Retained<Observer>);

impl Watch {
    pub(super) fn start(proxy: EventLoopProxy<EventLoopRequest>, main: MainThreadMarker) -> Watch {
        let observer = main.alloc::<Observer>().set_ivars(proxy);
        // SAFETY: NSObject's `init` takes nothing and returns the object.
        let observer: Retained<Observer> = unsafe { msg_send_id![super(observer), init] };
        // SAFETY: the method of that name takes only the notification, and the observer is alive
        // until `drop` removes it.
        unsafe {
            NSNotificationCenter::defaultCenter().addObserver_selector_name_object(
                &observer,
                sel!(activated:),
                Some(NSApplicationDidBecomeActiveNotification),
                None,
            );
        }
        Watch(observer)
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        // SAFETY: it is an observer of this centre.
        unsafe { NSNotificationCenter::defaultCenter().removeObserver(&self.0) };
    }
}
