//! Tests that rows of recorded commands are read as single commands are.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::sync::atomic::AtomicU64;

use crate::COMMANDS;
use crate::command_info::Codec;
use crate::roundtrip::text;
use crate::runtime::{Arena, Decoder, Front, HandleMap, Resolved, Row, Slot};
use crate::sample::Sampler;
use crate::vk::HandleType;

/// The owner of all objects.
const OWNER: u32 = 7;

/// A table that has every object that was looked for once.
struct Learning {
    slots: Vec<Slot>,
    removals: AtomicU64,
    asked: RefCell<BTreeMap<u64, HandleType>>,
}

impl Learning {
    fn new() -> Self {
        Self {
            slots: std::iter::repeat_with(Slot::default)
                .take(1 << 12)
                .collect(),
            removals: AtomicU64::new(0),
            asked: RefCell::default(),
        }
    }

    /// Puts what was asked for into the slots. Where two objects meet, the second one is left out.
    fn learn(&self) {
        for (id, ty) in self.asked.borrow().iter() {
            let slot = &self.slots[*id as usize % self.slots.len()];
            if slot.id() == 0 {
                let object = Resolved {
                    handle: !*id,
                    owner: OWNER,
                };
                slot.put(*id, *ty as u32, object);
            }
        }
    }
}

impl HandleMap for Learning {
    fn resolve(&self, ty: HandleType, id: u64) -> Resolved {
        self.asked.borrow_mut().insert(id, ty);
        Resolved {
            handle: !id,
            owner: OWNER,
        }
    }

    fn front(&self) -> Front<'_> {
        Front::new(&self.slots, &self.removals)
    }
}

type Read = unsafe fn(*mut u8, &mut Row<'_, '_>) -> bool;

fn simple() -> Vec<(&'static str, u32, Codec, Read)> {
    let codecs = COMMANDS.iter().flatten().filter_map(|info| {
        let codec = info.codec()?;
        Some((info.name, info.id.number(), codec, codec.read?))
    });
    codecs.collect()
}

/// The same command twice, with random arguments, and bytes after it.
fn twice(codec: Codec, number: u32, seed: u64, arena: &Arena) -> (Vec<u8>, usize) {
    let id = crate::CommandId::from_number(number).unwrap();
    let args = Sampler::new(seed, arena).args(codec.layout);
    let mut stream = Vec::new();
    // SAFETY: sampled for this layout.
    unsafe { crate::guest::encode_erased(id, codec.layout, args, false, &mut stream) };
    let length = stream.len();
    stream.extend_from_within(..);
    stream.extend([0; 64]);
    (stream, length)
}

#[test]
fn a_command_in_a_row_is_read_as_a_single_one_is() {
    let commands = simple();
    assert!(commands.len() > 90, "{}", commands.len());
    for (name, number, codec, read) in commands {
        let mut in_rows = 0;
        for seed in 0..64 {
            let arena = Arena::default();
            let (stream, length) = twice(codec, number, seed, &arena);
            let place = || arena.zeroed_bytes(codec.layout.size).unwrap().as_ptr();
            let objects = Learning::new();
            let (mut once, single) = (stream.clone(), place());
            let mut decoder = Decoder::new(&mut once, &arena, &objects);
            decoder.header().unwrap();
            // SAFETY: memory of the layout's size.
            unsafe { (codec.decode)(single, &mut decoder) }.unwrap();
            objects.learn();

            let (mut again, second) = (stream.clone(), place());
            let mut decoder = Decoder::new(&mut again, &arena, &objects);
            decoder.header().unwrap();
            // SAFETY: memory of the layout's size.
            unsafe { (codec.decode)(second, &mut decoder) }.unwrap();
            assert!(decoder.is_recording(), "{name}");
            let mut table = [None; crate::COMMAND_COUNT];
            table[number as usize] = Some(());
            decoder.begin_row(2 * length);
            let third = place();
            let (found, (), mut row) = decoder.next_in_row(&table).unwrap();
            assert_eq!(found, number);
            // SAFETY: memory of the layout's size.
            if unsafe { read(third, &mut row) } {
                let [single, third] = [single, third].map(|args| text(codec.layout, args, false));
                assert_eq!(single, third, "{name} seed {seed}");
                assert_eq!(decoder.position(), 2 * length, "{name} seed {seed}");
                assert!(!decoder.is_stopped());
                in_rows += 1;
            } else {
                // Nothing was changed, so the command can be read again.
                assert!(decoder.is_stopped());
                assert_eq!(decoder.position(), length, "{name} seed {seed}");
                let mut left = decoder.rest().to_vec();
                left.truncate(length);
                assert_eq!(left, stream[..length], "{name} seed {seed}");
            }
        }
        assert_ne!(in_rows, 0, "{name}");
    }
}

#[test]
fn a_row_ends_before_what_is_not_for_it() {
    let (name, number, codec, _) = simple()
        .into_iter()
        .find(|(name, ..)| *name == "vkCmdDraw")
        .unwrap();
    let arena = Arena::default();
    let (stream, length) = twice(codec, number, 1, &arena);
    let mut table = [None; crate::COMMAND_COUNT];
    table[number as usize] = Some(());
    let ends = |change: &dyn Fn(&mut Vec<u8>), end: usize, is_recording: bool| {
        let arena = Arena::default();
        let mut stream = stream.clone();
        change(&mut stream);
        let objects = Learning::new();
        let mut decoder = Decoder::new(&mut stream, &arena, &objects);
        if is_recording {
            decoder.header().unwrap();
            let args = arena.zeroed_bytes(codec.layout.size).unwrap().as_ptr();
            // SAFETY: memory of the layout's size.
            unsafe { (codec.decode)(args, &mut decoder) }.unwrap();
        }
        objects.removals.fetch_add(
            u64::from(end == usize::MAX),
            std::sync::atomic::Ordering::Relaxed,
        );
        decoder.begin_row(end);
        decoder.next_in_row(&table).is_none()
    };
    assert!(!ends(&|_| (), 2 * length, true), "{name}");
    assert!(ends(&|_| (), length, true), "behind the end");
    assert!(ends(&|_| (), 2 * length, false), "no command buffer yet");
    assert!(ends(&|_| (), usize::MAX, true), "one was removed");
    assert!(
        ends(&|stream| stream[length + 4] = 1, 2 * length, true),
        "a reply"
    );
    assert!(
        ends(&|stream| stream[length + 7] = 1, 2 * length, true),
        "other flags"
    );
    assert!(
        ends(&|stream| stream[length] ^= 1, 2 * length, true),
        "another command"
    );
    assert!(
        ends(&|stream| stream[length + 3] = 9, 2 * length, true),
        "no command"
    );
    assert!(
        ends(&|stream| stream.truncate(2 * length + 20), 2 * length, true),
        "near the end"
    );
}

#[test]
fn a_command_for_another_command_buffer_ends_the_row() {
    let (_, number, codec, read) = simple()
        .into_iter()
        .find(|(name, ..)| *name == "vkCmdDraw")
        .unwrap();
    let mut table = [None; crate::COMMAND_COUNT];
    table[number as usize] = Some(());
    for is_other in [false, true] {
        let arena = Arena::default();
        let (mut stream, length) = twice(codec, number, 1, &arena);
        // The id is the first argument, after the header.
        stream[length + 8] ^= u8::from(is_other) << 1;
        let objects = Learning::new();
        let mut decoder = Decoder::new(&mut stream, &arena, &objects);
        decoder.header().unwrap();
        let args = arena.zeroed_bytes(codec.layout.size).unwrap().as_ptr();
        // SAFETY: memory of the layout's size.
        unsafe { (codec.decode)(args, &mut decoder) }.unwrap();
        for is_simple in [false, true] {
            decoder.begin_row(2 * length);
            let (_, (), mut row) = decoder.next_in_row(&table).unwrap();
            let is_read = match is_simple {
                // SAFETY: memory of the layout's size.
                true => unsafe { read(args, &mut row) },
                false => row.decoder().is_some(),
            };
            assert_eq!(is_read, !is_other);
            row.leave();
            assert!(decoder.is_stopped());
            assert_eq!(decoder.position(), length);
        }
    }
}
