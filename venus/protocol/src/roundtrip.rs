//! Tests that send every command to the host and back, with hostile input too.
//!
//! The guest's side interprets the schema, and the host's side is straight-line code: these tests
//! compare the two.

use std::panic::{AssertUnwindSafe, catch_unwind};

use proptest::prelude::*;

use crate::COMMANDS;
use crate::command_info::{Codec, CommandInfo};
use crate::guest::{decode_reply_erased, encode_erased};
use crate::layout::{Element, Field, Kind, Layout, NEXT, Value, pointer};
use crate::runtime::{Arena, Decoder, Encoder, Fatal, Identity, MAX_LINKS, Reason};
use crate::sample::{self, Sampler};
use crate::trace::Tracer;

fn codable() -> impl Iterator<Item = (&'static CommandInfo, Codec)> {
    COMMANDS
        .iter()
        .flatten()
        .filter_map(|info| info.codec().map(|codec| (info, codec)))
}

/// The arguments as text, with or without the contents of outputs.
pub(crate) fn text(layout: &Layout, args: *const u8, outputs: bool) -> String {
    let mut out = String::new();
    let tracer = Tracer {
        shown: usize::MAX,
        outputs,
    };
    // SAFETY: callers pass arguments of this layout.
    unsafe { tracer.command(&mut out, layout, args) }.unwrap();
    out
}

/// Decodes into memory of `arena`.
fn decode(codec: Codec, stream: &mut [u8], arena: &Arena) -> Result<*mut u8, Fatal> {
    let length = stream.len();
    let mut decoder = Decoder::new(stream, arena, &Identity);
    decoder.header()?;
    let args = arena.zeroed_bytes(codec.layout.size).unwrap().as_ptr();
    // SAFETY: memory of the layout's size.
    unsafe { (codec.decode)(args, &mut decoder) }.map_err(|_| decoder.failure())?;
    assert!(
        decoder.is_empty(),
        "{} bytes left of {}",
        length - decoder.position(),
        length
    );
    Ok(args)
}

/// Acts as a driver: fills outputs, and uses no more room than there is.
struct Driver<'a> {
    random: Sampler<'a>,
}

impl Driver<'_> {
    /// # Safety
    /// The value must belong to its layout; its pointers must be null or valid.
    unsafe fn command(&mut self, layout: &Layout, args: *mut u8) {
        // Counts last: until then they hold the available room.
        for is_count in [false, true] {
            for field in layout
                .fields
                .iter()
                .filter(|f| f.is_out && f.is_length == is_count)
            {
                // SAFETY: as the caller promises.
                unsafe {
                    let at = args.add(field.offset);
                    let target = pointer(at);
                    match &field.kind {
                        Kind::Pointer(Element::Value(value), _) if is_count => {
                            let room = value.number(target);
                            value.set(target, self.random.below(room + 1));
                        }
                        Kind::Pointer(element, _) => self.elements(element, target, 1),
                        Kind::Array(element, ..) => {
                            self.elements(element, target, Value::U64.number(at.add(8)));
                        }
                        _ => panic!("{}", field.name),
                    }
                }
            }
        }
    }

    /// # Safety
    /// The value must belong to its layout; its pointers must be null or valid.
    unsafe fn elements(&mut self, element: &Element, start: *mut u8, n: u64) {
        if start.is_null() {
            return;
        }
        for i in 0..n as usize {
            // SAFETY: as the caller promises.
            unsafe {
                let at = start.add(i * element.size());
                match element {
                    Element::Value(value) => value.set(at, self.random.random()),
                    Element::Handle(..) => Value::U64.set(at, self.random.random()),
                    Element::Struct(layout) => self.structure(layout, at),
                    Element::Union(_) => panic!("a union in an output"),
                }
            }
        }
    }

    /// # Safety
    /// The value must belong to its layout; its pointers must be null or valid.
    unsafe fn structure(&mut self, layout: &Layout, at: *mut u8) {
        // SAFETY: as the caller promises.
        unsafe {
            if layout.stype.is_some() {
                let mut next = pointer(at.add(NEXT));
                while !next.is_null() {
                    let stype = Value::I32.number(next) as i32;
                    let link = layout
                        .chain
                        .iter()
                        .find(|l| l.stype == Some(stype))
                        .unwrap();
                    self.members(link, next);
                    next = pointer(next.add(NEXT));
                }
            }
            self.members(layout, at);
        }
    }

    /// # Safety
    /// The value must belong to its layout; its pointers must be null or valid.
    unsafe fn members(&mut self, layout: &Layout, at: *mut u8) {
        for is_count in [false, true] {
            for field in layout.fields.iter().filter(|f| f.is_length == is_count) {
                // SAFETY: as the caller promises.
                unsafe { self.member(at, field) };
            }
        }
    }

    /// # Safety
    /// The value must belong to its layout; its pointers must be null or valid.
    unsafe fn member(&mut self, base: *mut u8, field: &Field) {
        // SAFETY: as the caller promises.
        unsafe {
            let at = base.add(field.offset);
            match &field.kind {
                Kind::Value(value) if field.is_length => {
                    let room = value.number(at);
                    value.set(at, self.random.below(room + 1));
                }
                Kind::Value(value) => value.set(at, self.random.random()),
                Kind::Struct(layout) => self.structure(layout, at),
                Kind::Fixed(element, n) => self.elements(element, at, *n as u64),
                Kind::Array(element, len, _) => {
                    self.elements(element, pointer(at), len.eval(base, 0));
                }
                _ => panic!("{} in an output", field.name),
            }
        }
    }
}

/// Exchanges one command with random arguments: the request to the host, the reply back.
fn exchange(info: &CommandInfo, codec: Codec, seed: u64) {
    let (guest, host, back) = (Arena::default(), Arena::default(), Arena::default());
    let layout = codec.layout;
    let sent = Sampler::new(seed, &guest).args(layout);
    let mut request = Vec::new();
    // SAFETY: sampled for this layout.
    unsafe { encode_erased(info.id, layout, sent, true, &mut request) };

    // Decoded arguments may refer to the stream.
    let (mut for_host, mut for_guest) = (request.clone(), request.clone());
    let received = decode(codec, &mut for_host, &host).unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(
        text(layout, sent, false),
        text(layout, received, false),
        "seed {seed}"
    );
    let mut again = Vec::new();
    // SAFETY: decoded for this layout.
    unsafe { encode_erased(info.id, layout, received, true, &mut again) };
    assert_eq!(request, again, "{} seed {seed}", info.name);

    // The driver answers. The guest reads the reply into memory that is as it was at the request.
    let mut driver = Driver {
        random: Sampler::new(!seed, &host),
    };
    let ret = driver.random.random();
    let mut reply = vec![0xee; 1 << 16];
    let mut encoder = Encoder::new(&mut reply);
    // SAFETY: decoded for this layout, and the driver keeps to the room it has.
    unsafe {
        driver.command(layout, received);
        (codec.reply)(received, &ret, &mut encoder).unwrap();
    }
    let length = encoder.position();
    let asked = decode(codec, &mut for_guest, &back).unwrap();
    // SAFETY: decoded for this layout.
    let (found, read) =
        unsafe { decode_reply_erased(info.id, layout, asked, &reply[..length]) }.unwrap();
    assert_eq!(read, length, "{} seed {seed}", info.name);
    assert_eq!(
        text(layout, received, true),
        text(layout, asked, true),
        "seed {seed}"
    );
    match layout.returns.map(Value::size) {
        None => assert_eq!(found, 0),
        Some(4) => assert_eq!(found, ret & 0xffff_ffff),
        Some(_) => assert_eq!(found, ret),
    }

    // With less room the reply is refused, and nothing beyond the room is written.
    let mut small = vec![0xee; length];
    for room in (0..length).step_by(4.max((length / 16) & !3)) {
        let mut encoder = Encoder::new(&mut small[..room]);
        // SAFETY: as above.
        assert!(unsafe { (codec.reply)(received, &ret, &mut encoder) }.is_err());
        assert_eq!(small[room], 0xee);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn every_command_survives_the_way_there_and_back(seed: u64) {
        for (info, codec) in codable() {
            exchange(info, codec, seed);
        }
    }

    #[test]
    fn random_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let arena = Arena::new(1 << 20);
        for (info, codec) in codable() {
            let mut stream = info.id.number().to_le_bytes().to_vec();
            stream.extend_from_slice(&[1, 0, 0, 0]);
            stream.extend_from_slice(&bytes);
            let args = arena.zeroed_bytes(codec.layout.size).unwrap().as_ptr();
            let mut decoder = Decoder::with_ids(&mut stream, &arena);
            decoder.header().unwrap();
            // SAFETY: memory of the layout's size.
            let _ = unsafe { (codec.decode)(args, &mut decoder) };
        }
    }

    #[test]
    fn changed_bytes_never_panic(seed: u64, at: usize, bits in 1u8..) {
        let mut arena = Arena::new(1 << 20);
        for (info, codec) in codable() {
            let mut stream = sample::request(info.id, seed, &mut arena);
            let at = 8 + at % (stream.len() - 7);
            let Some(byte) = stream.get_mut(at) else { continue };
            *byte ^= bits;
            let args = arena.zeroed_bytes(codec.layout.size).unwrap().as_ptr();
            let mut decoder = Decoder::with_ids(&mut stream, &arena);
            decoder.header().unwrap();
            // SAFETY: memory of the layout's size.
            let _ = unsafe { (codec.decode)(args, &mut decoder) };
            arena.reset();
        }
    }
}

#[test]
fn a_command_cut_at_any_byte_is_an_error() {
    let mut arena = Arena::default();
    for (info, codec) in codable() {
        for seed in 0..4 {
            let stream = sample::request(info.id, seed, &mut arena);
            for length in 0..stream.len() {
                let cut = catch_unwind(AssertUnwindSafe(|| {
                    decode(codec, &mut stream[..length].to_vec(), &arena)
                }));
                let error = cut.expect("no panic").expect_err("no success");
                assert!(
                    matches!(error.reason, Reason::Truncated { .. }),
                    "{} at {length}: {error}",
                    info.name
                );
                arena.reset();
            }
        }
    }
}

#[test]
fn samples_reach_every_struct() {
    let mut missing: std::collections::BTreeSet<&str> = std::collections::BTreeSet::new();
    fn collect(layout: &'static Layout, into: &mut std::collections::BTreeSet<&'static str>) {
        let mut element = |kind: &Kind| match kind {
            Kind::Struct(l) => collect(l, into),
            Kind::Fixed(Element::Struct(l), _)
            | Kind::Pointer(Element::Struct(l), _)
            | Kind::Array(Element::Struct(l), ..) => collect(l, into),
            _ => {}
        };
        layout.fields.iter().for_each(|f| element(&f.kind));
        // The decoder marks the structs that it has seen with a bit each.
        assert!(layout.chain.len() <= MAX_LINKS, "{}", layout.name);
        for link in layout.chain {
            into.insert(link.name);
            collect(link, into);
        }
    }
    for (_, codec) in codable() {
        collect(codec.layout, &mut missing);
    }
    assert!(missing.len() > 250, "{} structs in chains", missing.len());
    let arena = &mut Arena::default();
    for seed in 0..4000 {
        for (_, codec) in
            codable().filter(|(_, c)| c.layout.fields.iter().any(|f| has_chain(&f.kind)))
        {
            let args = Sampler::new(seed, arena).args(codec.layout);
            let seen = text(codec.layout, args, true);
            missing.retain(|name| !seen.contains(&format!("{name}{{")));
            arena.reset();
        }
        if missing.is_empty() {
            return;
        }
    }
    panic!("never sampled: {missing:?}");
}

fn has_chain(kind: &Kind) -> bool {
    matches!(
        kind,
        Kind::Pointer(Element::Struct(_), _) | Kind::Array(Element::Struct(_), ..)
    )
}
