//! A second opinion on the device's 2D resources: the same transfers through `rutabaga_gfx`'s 2D
//! component give the same pixels.
//!
//! Hesper does not use that component: it has no memory that a GPU can import, and interprets a
//! transfer's offset differently (see `offset` below).
#![cfg(target_os = "linux")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test fails by a panic"
)]

use std::io::IoSliceMut;
use std::sync::Arc;

use hesper_vhost::screen::Rect;
use hesper_vhost::testing::{Guest, Recorder, Request, options};
use hesper_vhost::wire;
use proptest::prelude::*;
use rutabaga_gfx::{
    RUTABAGA_PIPE_BIND_RENDER_TARGET, RUTABAGA_PIPE_TEXTURE_2D, ResourceCreate3D, Rutabaga,
    RutabagaBuilder, RutabagaComponentType, RutabagaHandler, RutabagaIovec, Transfer3D,
};

const FORMAT: u32 = wire::FORMAT_B8G8R8A8;
const ID: u32 = 1;

/// The library with one resource.
fn library(width: u32, height: u32) -> Rutabaga {
    let mut rutabaga = RutabagaBuilder::new(0, RutabagaHandler::new(|_| ()))
        .set_default_component(RutabagaComponentType::Rutabaga2D)
        .build()
        .unwrap();
    let create = ResourceCreate3D {
        target: RUTABAGA_PIPE_TEXTURE_2D,
        format: FORMAT,
        bind: RUTABAGA_PIPE_BIND_RENDER_TARGET,
        width,
        height,
        depth: 1,
        array_size: 1,
        last_level: 0,
        nr_samples: 0,
        flags: 0,
    };
    rutabaga.resource_create_3d(ID, create).unwrap();
    rutabaga
}

/// The offset of a rectangle in the backing, as drivers send it (virtio-v1.4 §5.7.6.8). The library
/// adds it by itself.
fn offset(rect: Rect, width: u32) -> u64 {
    u64::from(rect.y * width + rect.x) * 4
}

/// A size, rectangles inside of it, and where its memory is cut into pieces.
fn cases() -> impl Strategy<Value = (u32, u32, Vec<Rect>, Vec<usize>)> {
    (1_u32..70, 1_u32..40).prop_flat_map(|(width, height)| {
        let rect = (0..width, 0..height).prop_flat_map(move |(x, y)| {
            (1..=width - x, 1..=height - y).prop_map(move |(width, height)| Rect {
                x,
                y,
                width,
                height,
            })
        });
        let bytes = (width * height * 4) as usize;
        let cuts = prop::collection::vec(0..=bytes, 0..6);
        (
            Just(width),
            Just(height),
            prop::collection::vec(rect, 1..8),
            cuts,
        )
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn the_same_transfers_give_the_same_pixels((width, height, rects, mut cuts) in cases()) {
        let bytes = (width * height * 4) as usize;
        let row = width * 4;
        cuts.extend([0, bytes]);
        cuts.sort_unstable();
        let screen = Arc::new(Recorder::default());
        let mut guest = Guest::with(options(), Arc::clone(&screen) as _, Vec::new());
        guest.ok(&Request::create_2d(ID, FORMAT, width, height));
        let mut library = library(width, height);
        let pixels: Vec<u8> = (0..bytes).map(|index| (index * 7 % 251) as u8).collect();
        let mut entries = Vec::new();
        let mut memory = pixels.clone();
        let mut iovecs = Vec::new();
        for piece in cuts.windows(2).filter(|piece| piece[0] < piece[1]) {
            let address = guest.pages(bytes as u64);
            guest.write(address, &pixels[piece[0]..piece[1]]);
            entries.push((address, (piece[1] - piece[0]) as u32));
            let slice = &mut memory[piece[0]..piece[1]];
            iovecs.push(RutabagaIovec {
                base: slice.as_mut_ptr().cast(),
                len: slice.len(),
            });
        }
        guest.ok(&Request::attach_backing(ID, &entries));
        library.attach_backing(ID, iovecs).unwrap();
        for rect in rects {
            guest.ok(&Request::transfer(ID, rect, offset(rect, width)));
            let transfer = Transfer3D::new_2d(rect.x, rect.y, rect.width, rect.height, 0);
            library.transfer_write(0, ID, transfer, None).unwrap();
        }
        let whole = Rect { x: 0, y: 0, width, height };
        guest.ok(&Request::set_scanout(0, ID, whole));
        let mut theirs = vec![0; bytes];
        let read = Transfer3D {
            stride: row,
            ..Transfer3D::new_2d(0, 0, width, height, 0)
        };
        library
            .transfer_read(0, ID, read, Some(IoSliceMut::new(&mut theirs)))
            .unwrap();
        prop_assert_eq!(screen.pixels(0), theirs);
    }
}
