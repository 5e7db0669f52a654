//! Random command streams against a model: every answer and every pixel on the screen must be the
//! model's.
//!
//! The model is the specification in its plainest form: images are byte arrays, one loop per pixel
//! row. Only scanouts that show the same frame of a blob share a shadow.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test may panic"
)]

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;

use hesper_vhost::screen::Rect;
use hesper_vhost::testing::{Guest, PAGE, Recorder, Request, options};
use hesper_vhost::wire::{
    FORMAT_B8G8R8X8, RESP_ERR_INVALID_PARAMETER, RESP_ERR_INVALID_RESOURCE_ID,
    RESP_ERR_INVALID_SCANOUT_ID, RESP_ERR_UNSPEC, RESP_OK_NODATA,
};
use proptest::prelude::*;

/// Pieces of guest memory that backings are made of; each is four scattered pages.
const REGIONS: usize = 3;
const REGION_BYTES: usize = 4 * PAGE as usize;

#[derive(Clone, Debug)]
enum Op {
    Create(u32, u32, u32),
    Unref(u32),
    Attach(u32, usize),
    Detach(u32),
    /// The guest writes its memory.
    Paint(usize, u8),
    Transfer(u32, Rect, u64),
    Show(u32, u32, Rect),
    Blob(u32, usize, u64),
    /// Scanout, id, size in pixels, offset, stride.
    ShowBlob(u32, u32, (u32, u32), (u32, u32)),
    Flush(u32, Rect),
}

struct Image {
    width: u32,
    height: u32,
    backing: Option<usize>,
    pixels: Vec<u8>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
struct Layout {
    width: u32,
    height: u32,
    offset: u64,
    stride: u64,
}

struct Shadow {
    layout: Layout,
    pixels: Vec<u8>,
}

struct Blob {
    size: u64,
    backing: Option<usize>,
    shadow: Option<Rc<RefCell<Shadow>>>,
}

enum Resource {
    Image(Image),
    Blob(Blob),
}

struct Scanout {
    resource: u32,
    view: Rect,
    shadow: Option<Rc<RefCell<Shadow>>>,
    stale: bool,
}

struct Model {
    memory: Vec<Vec<u8>>,
    resources: HashMap<u32, Resource>,
    scanouts: [Option<Scanout>; 2],
}

/// The sides of a rectangle as wide numbers: left, top, right, bottom.
fn sides(rect: Rect) -> [u64; 4] {
    let [x, y, width, height] = [rect.x, rect.y, rect.width, rect.height].map(u64::from);
    [x, y, x + width, y + height]
}

fn inside(rect: Rect, width: u32, height: u32) -> bool {
    let [_, _, right, bottom] = sides(rect);
    right <= width.into() && bottom <= height.into()
}

fn overlap(one: Rect, other: Rect) -> Option<Rect> {
    let (one, other) = (sides(one), sides(other));
    let (left, top) = (one[0].max(other[0]), one[1].max(other[1]));
    let (right, bottom) = (one[2].min(other[2]), one[3].min(other[3]));
    (left < right && top < bottom).then(|| Rect {
        x: left as u32,
        y: top as u32,
        width: (right - left) as u32,
        height: (bottom - top) as u32,
    })
}

/// Copies rectangle `rect` into rows of `to_stride` bytes from rows of `from_stride` bytes that
/// start at `from_start`.
fn copy(to: &mut [u8], to_stride: u64, rect: Rect, from: &[u8], from_start: u64, from_stride: u64) {
    for row in 0..u64::from(rect.height) {
        for byte in 0..u64::from(rect.width) * 4 {
            let target = (u64::from(rect.y) + row) * to_stride + u64::from(rect.x) * 4 + byte;
            to[target as usize] = from[(from_start + row * from_stride + byte) as usize];
        }
    }
}

impl Model {
    fn new() -> Self {
        Self {
            memory: vec![vec![0; REGION_BYTES]; REGIONS],
            resources: HashMap::new(),
            scanouts: [None, None],
        }
    }

    /// Does one step, and returns the answer's type.
    fn apply(&mut self, op: &Op) -> u32 {
        let done = match *op {
            Op::Create(id, width, height) => self.create(id, width, height),
            Op::Unref(id) => self.unref(id),
            Op::Attach(id, region) => self.attach(id, region),
            Op::Detach(id) => self.detach(id),
            Op::Paint(region, seed) => {
                for (index, byte) in self.memory[region].iter_mut().enumerate() {
                    *byte = paint(seed, index);
                }
                Ok(())
            }
            Op::Transfer(id, rect, offset) => self.transfer(id, rect, offset),
            Op::Show(scanout, id, view) => self.show(scanout, id, view),
            Op::Blob(id, region, size) => self.blob(id, region, size),
            Op::ShowBlob(scanout, id, size, layout) => self.show_blob(scanout, id, size, layout),
            Op::Flush(id, rect) => self.flush(id, rect),
        };
        done.err().unwrap_or(RESP_OK_NODATA)
    }

    fn create(&mut self, id: u32, width: u32, height: u32) -> Result<(), u32> {
        if width == 0 || height == 0 {
            return Err(RESP_ERR_INVALID_PARAMETER);
        }
        self.insert(
            id,
            Resource::Image(Image {
                width,
                height,
                backing: None,
                pixels: vec![0; (width * height * 4) as usize],
            }),
        )
    }

    fn blob(&mut self, id: u32, region: usize, size: u64) -> Result<(), u32> {
        if size == 0 || size > REGION_BYTES as u64 {
            return Err(RESP_ERR_INVALID_PARAMETER);
        }
        self.insert(
            id,
            Resource::Blob(Blob {
                size,
                backing: Some(region),
                shadow: None,
            }),
        )
    }

    fn insert(&mut self, id: u32, resource: Resource) -> Result<(), u32> {
        if id == 0 || self.resources.contains_key(&id) {
            return Err(RESP_ERR_INVALID_RESOURCE_ID);
        }
        self.resources.insert(id, resource);
        Ok(())
    }

    fn find(&mut self, id: u32) -> Result<&mut Resource, u32> {
        self.resources
            .get_mut(&id)
            .ok_or(RESP_ERR_INVALID_RESOURCE_ID)
    }

    fn unref(&mut self, id: u32) -> Result<(), u32> {
        self.find(id)?;
        self.resources.remove(&id);
        for scanout in &mut self.scanouts {
            if scanout.as_ref().is_some_and(|shown| shown.resource == id) {
                *scanout = None;
            }
        }
        Ok(())
    }

    fn attach(&mut self, id: u32, region: usize) -> Result<(), u32> {
        let (backing, size) = match self.find(id)? {
            Resource::Image(image) => (&mut image.backing, 0),
            Resource::Blob(blob) => (&mut blob.backing, blob.size),
        };
        if backing.is_some() {
            return Err(RESP_ERR_UNSPEC);
        }
        assert!(size <= REGION_BYTES as u64);
        *backing = Some(region);
        Ok(())
    }

    fn detach(&mut self, id: u32) -> Result<(), u32> {
        let backing = match self.find(id)? {
            Resource::Image(image) => &mut image.backing,
            Resource::Blob(blob) => &mut blob.backing,
        };
        backing.take().map(|_| ()).ok_or(RESP_ERR_UNSPEC)
    }

    fn transfer(&mut self, id: u32, rect: Rect, offset: u64) -> Result<(), u32> {
        let memory = self.memory.clone();
        let Resource::Image(image) = self.find(id)? else {
            return Ok(());
        };
        let region = image.backing.ok_or(RESP_ERR_UNSPEC)?;
        if !inside(rect, image.width, image.height) {
            return Err(RESP_ERR_INVALID_PARAMETER);
        }
        if rect.width == 0 || rect.height == 0 {
            return Ok(());
        }
        let stride = u64::from(image.width) * 4;
        let end = u128::from(offset)
            + u128::from(stride) * u128::from(rect.height - 1)
            + u128::from(rect.width) * 4;
        if end > REGION_BYTES as u128 {
            return Err(RESP_ERR_INVALID_PARAMETER);
        }
        copy(
            &mut image.pixels,
            stride,
            rect,
            &memory[region],
            offset,
            stride,
        );
        Ok(())
    }

    fn place(&mut self, scanout: u32, shown: Option<Scanout>) {
        self.scanouts[scanout as usize] = shown;
    }

    fn show(&mut self, scanout: u32, id: u32, view: Rect) -> Result<(), u32> {
        if scanout >= 2 {
            return Err(RESP_ERR_INVALID_SCANOUT_ID);
        }
        if id == 0 {
            self.place(scanout, None);
            return Ok(());
        }
        let Resource::Image(image) = self.find(id)? else {
            return Err(RESP_ERR_INVALID_RESOURCE_ID);
        };
        if view.width == 0 || view.height == 0 || !inside(view, image.width, image.height) {
            return Err(RESP_ERR_INVALID_PARAMETER);
        }
        let shown = Scanout {
            resource: id,
            view,
            shadow: None,
            stale: false,
        };
        self.place(scanout, Some(shown));
        Ok(())
    }

    fn show_blob(
        &mut self,
        scanout: u32,
        id: u32,
        (width, height): (u32, u32),
        (offset, stride): (u32, u32),
    ) -> Result<(), u32> {
        if scanout >= 2 {
            return Err(RESP_ERR_INVALID_SCANOUT_ID);
        }
        if id == 0 {
            self.place(scanout, None);
            return Ok(());
        }
        let Resource::Blob(blob) = self.find(id)? else {
            return Err(RESP_ERR_INVALID_RESOURCE_ID);
        };
        let layout = Layout {
            width,
            height,
            offset: offset.into(),
            stride: stride.into(),
        };
        let row = u64::from(width) * 4;
        let bad = width == 0
            || height == 0
            || layout.stride < row
            || !layout.stride.is_multiple_of(4)
            || layout.offset + layout.stride * u64::from(height - 1) + row > blob.size;
        if bad {
            return Err(RESP_ERR_INVALID_PARAMETER);
        }
        let shadow = match &blob.shadow {
            Some(shadow) if shadow.borrow().layout == layout => Rc::clone(shadow),
            _ => {
                let pixels = vec![0; (width * height * 4) as usize];
                Rc::new(RefCell::new(Shadow { layout, pixels }))
            }
        };
        blob.shadow = Some(Rc::clone(&shadow));
        let shown = Scanout {
            resource: id,
            view: Rect {
                x: 0,
                y: 0,
                width,
                height,
            },
            shadow: Some(shadow),
            stale: true,
        };
        self.place(scanout, Some(shown));
        Ok(())
    }

    fn flush(&mut self, id: u32, rect: Rect) -> Result<(), u32> {
        let memory = self.memory.clone();
        let backing = match self.find(id)? {
            Resource::Image(image) => {
                return if inside(rect, image.width, image.height) {
                    Ok(())
                } else {
                    Err(RESP_ERR_INVALID_PARAMETER)
                };
            }
            Resource::Blob(blob) => blob.backing,
        };
        for shown in self.scanouts.iter_mut().flatten() {
            if shown.resource != id {
                continue;
            }
            let damage = if shown.stale {
                Some(shown.view)
            } else {
                overlap(rect, shown.view)
            };
            let (Some(damage), Some(shadow)) = (damage, &shown.shadow) else {
                continue;
            };
            let region = backing.ok_or(RESP_ERR_UNSPEC)?;
            shown.stale = false;
            let Shadow { layout, pixels } = &mut *shadow.borrow_mut();
            let start =
                layout.offset + u64::from(damage.y) * layout.stride + u64::from(damage.x) * 4;
            let packed = u64::from(layout.width) * 4;
            copy(
                pixels,
                packed,
                damage,
                &memory[region],
                start,
                layout.stride,
            );
        }
        Ok(())
    }

    /// What a scanout shows.
    fn pixels(&self, scanout: usize) -> Option<Vec<u8>> {
        let shown = self.scanouts[scanout].as_ref()?;
        let mut pixels = vec![0; (shown.view.width * shown.view.height * 4) as usize];
        let whole = Rect {
            x: 0,
            y: 0,
            ..shown.view
        };
        let row = u64::from(shown.view.width) * 4;
        let mut crop = |from: &[u8], width: u32| {
            let stride = u64::from(width) * 4;
            let start = u64::from(shown.view.y) * stride + u64::from(shown.view.x) * 4;
            copy(&mut pixels, row, whole, from, start, stride);
        };
        match (&shown.shadow, &self.resources[&shown.resource]) {
            (Some(shadow), _) => {
                let shadow = shadow.borrow();
                crop(&shadow.pixels, shadow.layout.width);
            }
            (None, Resource::Image(image)) => crop(&image.pixels, image.width),
            (None, Resource::Blob(_)) => unreachable!("a blob is shown through its shadow"),
        }
        Some(pixels)
    }
}

fn paint(seed: u8, index: usize) -> u8 {
    (index.wrapping_mul(31) >> 3) as u8 ^ seed
}

/// The device, and where the regions are in its guest's memory.
struct Real {
    guest: Guest,
    screen: Arc<Recorder>,
    regions: Vec<Vec<(u64, u32)>>,
}

impl Real {
    fn new() -> Self {
        let screen = Arc::new(Recorder::default());
        let mut guest = Guest::with(options(), Arc::clone(&screen) as _, Vec::new());
        let regions = (0..REGIONS)
            .map(|_| {
                let start = guest.pages(2 * REGION_BYTES as u64);
                (0..4)
                    .map(|page| (start + (3 - page) * 2 * PAGE, PAGE as u32))
                    .collect()
            })
            .collect();
        Self {
            guest,
            screen,
            regions,
        }
    }

    fn apply(&mut self, op: &Op) -> u32 {
        let request = match *op {
            Op::Create(id, width, height) => Request::create_2d(id, FORMAT_B8G8R8X8, width, height),
            Op::Unref(id) => Request::unref(id),
            Op::Attach(id, region) => Request::attach_backing(id, &self.regions[region]),
            Op::Detach(id) => Request::detach_backing(id),
            Op::Paint(region, seed) => {
                let bytes: Vec<u8> = (0..REGION_BYTES).map(|index| paint(seed, index)).collect();
                for (chunk, (address, _)) in bytes.chunks(PAGE as usize).zip(&self.regions[region])
                {
                    self.guest.write(*address, chunk);
                }
                return RESP_OK_NODATA;
            }
            Op::Transfer(id, rect, offset) => Request::transfer(id, rect, offset),
            Op::Show(scanout, id, view) => Request::set_scanout(scanout, id, view),
            Op::Blob(id, region, size) => Request::guest_blob(id, size, &self.regions[region]),
            Op::ShowBlob(scanout, id, frame @ (width, height), layout) => {
                let view = Rect {
                    x: 0,
                    y: 0,
                    width,
                    height,
                };
                Request::set_scanout_frame(scanout, id, FORMAT_B8G8R8X8, frame, layout, view)
            }
            Op::Flush(id, rect) => Request::flush(id, rect),
        };
        self.guest.code(&request)
    }

    fn pixels(&self, scanout: u32) -> Option<Vec<u8>> {
        self.screen
            .picture(scanout)
            .map(|_| self.screen.pixels(scanout))
    }
}

fn length() -> impl Strategy<Value = u32> {
    prop_oneof![12 => 0..70_u32, 1 => Just(u32::MAX)]
}

fn rect() -> impl Strategy<Value = Rect> {
    let any = (length(), length(), length(), length()).prop_map(|(x, y, width, height)| Rect {
        x,
        y,
        width,
        height,
    });
    // Mostly near the corner, so that it often fits.
    let small =
        (0..12_u32, 0..12_u32, 0..20_u32, 0..20_u32).prop_map(|(x, y, width, height)| Rect {
            x,
            y,
            width,
            height,
        });
    prop_oneof![1 => any, 3 => small]
}

fn op() -> impl Strategy<Value = Op> {
    let id = || 0..5_u32;
    let region = || 0..REGIONS;
    let offset = prop_oneof![8 => 0..9000_u64, 1 => Just(u64::MAX), 1 => Just(u64::MAX - 200)];
    let blob_size = prop_oneof![6 => 1000..=REGION_BYTES as u64, 1 => Just(0), 1 => Just(u64::MAX)];
    let stride = prop_oneof![4 => (0..60_u32).prop_map(|pixels| pixels * 4), 1 => 0..300_u32];
    prop_oneof![
        3 => (id(), 0..60_u32, 0..60_u32).prop_map(|(id, w, h)| Op::Create(id, w, h)),
        1 => id().prop_map(Op::Unref),
        3 => (id(), region()).prop_map(|(id, region)| Op::Attach(id, region)),
        1 => id().prop_map(Op::Detach),
        2 => (region(), any::<u8>()).prop_map(|(region, seed)| Op::Paint(region, seed)),
        5 => (id(), rect(), offset).prop_map(|(id, rect, at)| Op::Transfer(id, rect, at)),
        3 => (0..3_u32, id(), rect()).prop_map(|(scanout, id, view)| Op::Show(scanout, id, view)),
        2 => (id(), region(), blob_size).prop_map(|(id, region, size)| Op::Blob(id, region, size)),
        3 => (0..3_u32, id(), (0..40_u32, 0..40_u32), (0..600_u32, stride))
            .prop_map(|(scanout, id, size, layout)| Op::ShowBlob(scanout, id, size, layout)),
        4 => (id(), rect()).prop_map(|(id, rect)| Op::Flush(id, rect)),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_device_answers_and_shows_what_the_model_does(ops in prop::collection::vec(op(), 1..120)) {
        let (mut model, mut real) = (Model::new(), Real::new());
        for (index, op) in ops.iter().enumerate() {
            let (expected, answered) = (model.apply(op), real.apply(op));
            prop_assert_eq!(answered, expected, "step {}: {:?}", index, op);
            for scanout in 0..2 {
                let (shown, wanted) = (real.pixels(scanout), model.pixels(scanout as usize));
                prop_assert!(shown == wanted, "step {index}: {op:?}: scanout {scanout} differs");
            }
        }
    }
}
