//! Every object that lives: its type and its parent. Checks that a handle is what a caller says it
//! is.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError};

use ash::vk;

use crate::violation;

/// A `VkObjectType` as the parameter of a function that serves many types.
pub(crate) type Kind = i32;

/// What is known of an object.
struct Object {
    kind: Kind,
    parent: u64,
}

#[derive(Default)]
struct Objects {
    live: HashMap<u64, Object>,
    made: u64,
}

static OBJECTS: LazyLock<Mutex<Objects>> = LazyLock::new(Mutex::default);

fn objects() -> MutexGuard<'static, Objects> {
    OBJECTS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// How many objects live.
pub(crate) fn live() -> u64 {
    objects().live.len() as u64
}

/// A new object. Handles are never used twice, so a destroyed one is always recognised.
pub(crate) fn make(kind: Kind, parent: u64) -> u64 {
    let mut objects = objects();
    objects.made += 1;
    // Far from the small numbers that guests use as ids.
    let handle = 0x6e75_0000_0000 | objects.made << 4;
    objects.live.insert(handle, Object { kind, parent });
    handle
}

/// How often [`check`] yields while it holds an object.
static LINGER: AtomicU32 = AtomicU32::new(0);

/// Makes every call use its objects for longer: [`check`] yields `times` times and looks again.
pub(crate) fn linger(times: u32) {
    LINGER.store(times, Ordering::Relaxed);
}

/// Whether calls linger.
pub(crate) fn lingers() -> bool {
    LINGER.load(Ordering::Relaxed) != 0
}

/// Ends the process unless `handle` is a live object of this type; returns its parent.
pub(crate) fn check(kind: Kind, handle: u64) -> u64 {
    let parent = look(kind, handle);
    let times = LINGER.load(Ordering::Relaxed);
    if times != 0 {
        (0..times).for_each(|_| std::thread::yield_now());
        // Ends the process if the object was destroyed while this call used it.
        look(kind, handle);
    }
    parent
}

fn look(kind: Kind, handle: u64) -> u64 {
    match objects().live.get(&handle) {
        Some(object) if object.kind == kind => object.parent,
        Some(object) => {
            let is = vk::ObjectType::from_raw(object.kind);
            let wanted = vk::ObjectType::from_raw(kind);
            violation(&format!("{handle:#x} is a {is:?}, not a {wanted:?}"))
        }
        None => {
            let wanted = vk::ObjectType::from_raw(kind);
            violation(&format!("{wanted:?} {handle:#x} does not exist"))
        }
    }
}

/// As [`check`], but for a handle that may be null.
pub(crate) fn check_optional(kind: Kind, handle: u64) {
    if handle != 0 {
        check(kind, handle);
    }
}

/// Removes an object. Its remaining children must have a type in `implicit`; they are removed, too.
pub(crate) fn destroy(kind: Kind, handle: u64, implicit: &[vk::ObjectType]) {
    check(kind, handle);
    let mut objects = objects();
    objects.live.remove(&handle);
    let is_implicit = |kind| implicit.contains(&vk::ObjectType::from_raw(kind));
    objects
        .live
        .retain(|_, object| object.parent != handle || !is_implicit(object.kind));
    if let Some((left, object)) = objects.live.iter().find(|(_, o)| o.parent == handle) {
        let (is, of) = (
            vk::ObjectType::from_raw(object.kind),
            vk::ObjectType::from_raw(kind),
        );
        violation(&format!(
            "{of:?} {handle:#x} is destroyed before its {is:?} {left:#x}"
        ));
    }
}

/// Removes everything that belongs to `parent`.
pub(crate) fn destroy_children(parent: u64) {
    objects().live.retain(|_, object| object.parent != parent);
}

/// The object of this type and parent. It is made when it is asked for the first time.
pub(crate) fn only(kind: Kind, parent: u64) -> u64 {
    let found = objects()
        .live
        .iter()
        .find(|(_, object)| object.kind == kind && object.parent == parent)
        .map(|(handle, _)| *handle);
    found.unwrap_or_else(|| make(kind, parent))
}
