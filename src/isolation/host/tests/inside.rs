//! A device that calls contexts from inside of what it hears: commands that waited for a blob run
//! on the thread that brings the blob.

use std::sync::{Arc, Barrier, OnceLock};
use std::thread;

use hesper_venus::GuestPages;
use hesper_venus::memory::page_size;

use super::fake::*;
use crate::contexts::VenusContext;
use crate::isolation::message::{FromWorker, ToWorker};

type Place = Arc<OnceLock<Arc<dyn VenusContext>>>;

fn attach(context: &Arc<dyn VenusContext>, resource: u32) {
    let page = GuestPages {
        file: file(1 << 20),
        offset: 0,
        size: page_size(),
    };
    context.attach_guest_memory(resource, &[page]).unwrap();
}

/// A worker that does what it is told, until its end.
fn obey(mut fake: Fake) -> thread::JoinHandle<()> {
    thread::spawn(move || {
        while let Some((call, _)) = fake.try_hear() {
            match call {
                ToWorker::CreateBlob { resource, .. } => {
                    let (_theirs, memory_fd) = memory(page_size());
                    fake.make_blob(resource, 0, page_size(), fd(&memory_fd));
                }
                ToWorker::Fence { ring, fence } => {
                    fake.say(FromWorker::FenceRetired { ring, fence });
                }
                ToWorker::Detach { ticket, .. } | ToWorker::GiveBack { ticket } if ticket > 0 => {
                    fake.say(FromWorker::Detached { ticket });
                }
                ToWorker::End => {
                    fake.say(FromWorker::Ended);
                    let _ = fake.control.shutdown(std::net::Shutdown::Both);
                }
                _ => {}
            }
        }
    })
}

#[test]
fn a_context_is_called_from_inside_of_its_own_answer() {
    let stage = Stage::default();
    let ears = Ears::new();
    let (context, fake) = stage.begin(&ears);
    let number = fake.number;
    attach(&context, 4);
    let place: Place = Arc::default();
    assert!(place.set(Arc::clone(&context)).is_ok());
    let inside = Arc::clone(&place);
    ears.set_hook(move |event| {
        if let (Event::Blob(1, _), Some(context)) = (event, inside.get()) {
            // Its own thread is here, and must hear the answer nevertheless.
            context.detach_resource(4);
            context.fence(1, 1);
            context.create_blob(2, request(page_size()));
        }
    });
    let obeying = obey(fake);
    context.create_blob(1, request(page_size()));
    let events = ears.wait(3);
    let size = page_size() as usize;
    assert_eq!(events[0], Event::Blob(1, size), "{events:?}");
    assert!(!stage.yard.is_killed(number));
    ears.remove_hook();
    drop((context, place));
    obeying.join().unwrap();
}

#[test]
fn two_contexts_are_called_from_inside_of_each_others_answers() {
    for _ in 0..20 {
        let stage = Stage::default();
        let (one_ears, two_ears) = (Ears::new(), Ears::new());
        let (one, one_fake) = stage.begin(&one_ears);
        let (two, two_fake) = stage.begin(&two_ears);
        let numbers = [one_fake.number, two_fake.number];
        attach(&one, 4);
        attach(&two, 4);
        let both = Arc::new(Barrier::new(2));
        for (ears, other) in [(&one_ears, &two), (&two_ears, &one)] {
            let (both, other) = (Arc::clone(&both), Arc::clone(other));
            ears.set_hook(move |event| {
                if matches!(event, Event::Blob(1, _)) {
                    both.wait();
                    // The other's thread waits for this one.
                    other.detach_resource(4);
                }
            });
        }
        let obeying = [obey(one_fake), obey(two_fake)];
        one.create_blob(1, request(page_size()));
        two.create_blob(1, request(page_size()));
        one_ears.wait(1);
        two_ears.wait(1);
        for number in numbers {
            assert!(!stage.yard.is_killed(number));
        }
        one_ears.remove_hook();
        two_ears.remove_hook();
        drop((one, two));
        obeying.into_iter().for_each(|one| one.join().unwrap());
    }
}

#[test]
fn the_last_of_a_context_is_dropped_inside_of_its_answer() {
    let stage = Stage::default();
    let ears = Ears::new();
    let (context, fake) = stage.begin(&ears);
    let number = fake.number;
    attach(&context, 4);
    let place = Arc::new(std::sync::Mutex::new(Some(Arc::clone(&context))));
    let inside = Arc::clone(&place);
    ears.set_hook(move |event| {
        if matches!(event, Event::Blob(1, _)) {
            drop(inside.lock().unwrap().take());
        }
    });
    context.create_blob(1, request(page_size()));
    drop(context);
    let obeying = obey(fake);
    ears.wait(1);
    obeying.join().unwrap();
    assert!(!stage.yard.is_killed(number) || place.lock().unwrap().is_none());
    ears.remove_hook();
}
