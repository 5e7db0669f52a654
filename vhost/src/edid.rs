//! EDID 1.4 of a scanout: it describes a monitor to the guest.
//!
//! [`describe`] puts the monitor's mode first and marks it preferred. The detailed timing of the
//! base block has room for a mode of up to 4095 pixels a side and 655.35 MHz. A larger mode goes
//! into a DisplayID 1.3 extension block, whose type I timing has 16 bits a side and 24 bits of 10
//! kHz. After the wanted mode come the usual smaller ones, all at 60 Hz.
//!
//! Blanking follows VESA CVT 1.2 reduced blanking version 1. But sizes that are not a multiple of
//! eight and the exact refresh rate are kept, since windows have odd sizes.

use crate::screen::{Monitor, ScanoutId};

/// Bytes of a block.
const BLOCK: usize = 128;
/// Fixed blanking of a row in pixels: front porch 48, sync 32, back porch 80.
const H_BLANK: u32 = 160;
const H_FRONT: u32 = 48;
const H_SYNC: u32 = 32;
const V_FRONT: u32 = 3;
const V_BACK_MIN: u32 = 6;
/// Shortest vertical blanking in nanoseconds.
const V_BLANK_NS: u64 = 460_000;
/// Some parsers reject pixel clocks below 10 MHz. In millihertz, as refresh rates are.
const MIN_CLOCK_MILLIHERTZ: u64 = 10_000_000_000;
/// Largest sizes that a detailed timing descriptor has bits for.
const DTD_MAX_SIDE: u32 = 4095;
const DTD_MAX_CLOCK: u64 = 65_535;
/// Largest pixel clock, in units of 10 kHz, of a DisplayID type I timing.
const DISPLAYID_MAX_CLOCK: u64 = 1 << 24;

/// Maker of the monitor, product code and year of manufacture.
const MAKER: &[u8; 3] = b"HVM";
const PRODUCT: u16 = 1;
const YEAR: u32 = 2025;

/// A mode with its blanking.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Timing {
    width: u32,
    height: u32,
    v_sync: u32,
    v_blank: u32,
    /// Pixel clock in units of 10 kHz.
    clock: u64,
}

impl Timing {
    fn new(width: u32, height: u32, refresh_mhz: u32) -> Self {
        let width = width.clamp(1, u32::from(u16::MAX));
        let height = height.clamp(1, u32::from(u16::MAX));
        let refresh = u64::from(refresh_mhz.clamp(1_000, 1_000_000));
        let v_sync = sync_lines(width, height);
        // The lines of a frame share the time that the blanking leaves.
        let frame_ns = 1_000_000_000_000 / refresh;
        let lines_ns = frame_ns - V_BLANK_NS.min(frame_ns / 2);
        let line_ns = (lines_ns / u64::from(height)).max(1);
        let lines = |count: u64| u32::try_from(count).unwrap_or(u32::MAX);
        // A tiny picture gets more blank lines, to reach a pixel clock that parsers accept.
        let believed = MIN_CLOCK_MILLIHERTZ.div_ceil(refresh * u64::from(width + H_BLANK));
        let needed = lines(V_BLANK_NS / line_ns + 1).max(lines(believed).saturating_sub(height));
        let v_blank = needed.clamp(V_FRONT + v_sync + V_BACK_MIN, DTD_MAX_SIDE);
        let pixels = u64::from(width + H_BLANK) * u64::from(height + v_blank);
        // Millihertz to units of 10 kHz, rounded.
        let clock = (pixels * refresh + 5_000_000) / 10_000_000;
        Self {
            width,
            height,
            v_sync,
            v_blank,
            clock: clock.clamp(1, DISPLAYID_MAX_CLOCK),
        }
    }

    fn fits_dtd(&self) -> bool {
        self.width <= DTD_MAX_SIDE && self.height <= DTD_MAX_SIDE && self.clock <= DTD_MAX_CLOCK
    }
}

/// Vertical sync width, which encodes the aspect ratio in CVT.
fn sync_lines(width: u32, height: u32) -> u32 {
    let is = |across: u32, down: u32| {
        u64::from(width) * u64::from(down) == u64::from(height) * u64::from(across)
    };
    if is(4, 3) {
        4
    } else if is(16, 9) {
        5
    } else if is(16, 10) {
        6
    } else if is(5, 4) || is(15, 9) {
        7
    } else {
        10
    }
}

/// Size of the picture in millimetres; 0 = not known.
#[derive(Clone, Copy)]
struct Size {
    width: u32,
    height: u32,
}

/// Builds one block, byte by byte, and closes it with its checksum.
struct Block {
    bytes: [u8; BLOCK],
    used: usize,
}

impl Block {
    fn new() -> Self {
        Self {
            bytes: [0; BLOCK],
            used: 0,
        }
    }

    /// Appends bytes. All callers together stay below the block's 127.
    fn put(&mut self, bytes: &[u8]) {
        for byte in bytes {
            if let Some(place) = self.bytes.get_mut(self.used) {
                *place = *byte;
                self.used += 1;
            }
        }
    }

    /// Makes the sum of `from..at` plus byte `at` zero.
    fn checksum(&mut self, from: usize, at: usize) {
        let sum = self
            .bytes
            .iter()
            .take(at)
            .skip(from)
            .fold(0_u8, |sum, byte| sum.wrapping_add(*byte));
        if let Some(place) = self.bytes.get_mut(at) {
            *place = sum.wrapping_neg();
        }
    }
}

/// The EDID of `monitor` on `scanout`: one block, or two when modes need the second.
pub(crate) fn describe(monitor: &Monitor, scanout: ScanoutId) -> Vec<u8> {
    let refresh = match monitor.refresh_mhz {
        0 => 60_000,
        refresh => refresh,
    };
    let (width, height) = match (monitor.width, monitor.height) {
        (0, _) | (_, 0) => (1024, 768),
        size => size,
    };
    let wanted = Timing::new(width, height, refresh);
    let size = Size {
        width: monitor.width_mm,
        height: monitor.height_mm,
    };
    let extension = extension(&wanted, size, scanout);
    let mut edid = base(&wanted, size, scanout, extension.is_some()).to_vec();
    if let Some(extension) = extension {
        edid.extend_from_slice(&extension);
    }
    edid
}

/// Modes of the base block's established timings: width, height, byte (0 or 1), bit.
const ESTABLISHED: [(u32, u32, usize, u8); 3] =
    [(640, 480, 0, 5), (800, 600, 0, 0), (1024, 768, 1, 3)];

/// Modes of the base block's eight standard timings, with the code of their aspect ratio.
const STANDARD: [(u32, u32, u8); 8] = [
    (1920, 1200, 0),
    (1920, 1080, 3),
    (1680, 1050, 0),
    (1600, 1200, 1),
    (1600, 900, 3),
    (1440, 900, 0),
    (1280, 1024, 2),
    (1280, 720, 3),
];

/// Larger modes for the extension block. It takes the first ones that are smaller than the wanted
/// mode.
const LARGE: [(u32, u32); 3] = [(5120, 2880), (3840, 2160), (2560, 1440)];

/// Whether a mode is smaller than the wanted one, in at least one direction and larger in none.
fn is_smaller(width: u32, height: u32, wanted: &Timing) -> bool {
    width <= wanted.width
        && height <= wanted.height
        && (width, height) != (wanted.width, wanted.height)
}

fn base(wanted: &Timing, size: Size, scanout: ScanoutId, extended: bool) -> [u8; BLOCK] {
    let mut block = Block::new();
    block.put(&[0, 255, 255, 255, 255, 255, 255, 0]);
    // Maker at five bits a letter, product, serial number, no week, year, EDID 1.4.
    let maker = MAKER
        .iter()
        .fold(0_u16, |code, letter| code << 5 | u16::from(letter - b'@'));
    block.put(&maker.to_be_bytes());
    block.put(&PRODUCT.to_le_bytes());
    block.put(&(scanout + 1).to_le_bytes());
    block.put(&[0, (YEAR - 1990) as u8, 1, 4]);
    // Digital, 8 bits a colour, DisplayPort.
    block.put(&[0xa5]);
    block.put(&size_in_cm(size));
    // Gamma 2.2; sRGB; the preferred timing is the native one unless it is in the extension.
    block.put(&[120, if wanted.fits_dtd() { 0x06 } else { 0x04 }]);
    // The sRGB primaries and white point, ten bits each: low bits first, then the high ones.
    block.put(&[0xee, 0x91, 0xa3, 0x54, 0x4c, 0x99, 0x26, 0x0f, 0x50, 0x54]);
    let mut established = [0_u8; 3];
    for (width, height, byte, bit) in ESTABLISHED {
        if is_smaller(width, height, wanted)
            && let Some(byte) = established.get_mut(byte)
        {
            *byte |= 1 << bit;
        }
    }
    block.put(&established);
    for (width, height, aspect) in STANDARD {
        if is_smaller(width, height, wanted) {
            block.put(&[(width / 8 - 31) as u8, aspect << 6]);
        } else {
            block.put(&[1, 1]);
        }
    }
    // The first descriptor must be a timing.
    let first = if wanted.fits_dtd() {
        *wanted
    } else {
        Timing::new(1920, 1080, 60_000)
    };
    block.put(&detailed(&first, size));
    block.put(&text(0xfc, format_args!("Hesper {}", scanout + 1)));
    block.put(&text(0xff, format_args!("HESPER-{:04}", scanout + 1)));
    // A dummy descriptor fills the last place.
    block.put(&[0, 0, 0, 0x10]);
    block.put(&[0; 14]);
    block.put(&[u8::from(extended)]);
    block.checksum(0, BLOCK - 1);
    block.bytes
}

/// The size in centimetres, a byte each. Both are zero when one is not known or too large.
fn size_in_cm(size: Size) -> [u8; 2] {
    let cm = |mm: u32| u8::try_from(mm.div_ceil(10)).unwrap_or(0);
    match (cm(size.width), cm(size.height)) {
        (0, _) | (_, 0) => [0, 0],
        (width, height) => [width, height],
    }
}

/// The low byte of `value`, and the four bits above it.
fn split(value: u32) -> (u8, u8) {
    (value as u8, (value >> 8 & 15) as u8)
}

/// A detailed timing descriptor (EDID 1.4 §3.10.2) of a mode that fits one.
fn detailed(timing: &Timing, size: Size) -> [u8; 18] {
    let [clock_low, clock_high, ..] = timing.clock.to_le_bytes();
    let (width, width_high) = split(timing.width);
    let (h_blank, h_blank_high) = split(H_BLANK);
    let (height, height_high) = split(timing.height);
    let (v_blank, v_blank_high) = split(timing.v_blank);
    let known = size.width != 0 && size.height != 0;
    let mm = |mm: u32| if known { mm.min(DTD_MAX_SIDE) } else { 0 };
    let (width_mm, width_mm_high) = split(mm(size.width));
    let (height_mm, height_mm_high) = split(mm(size.height));
    [
        clock_low,
        clock_high,
        width,
        h_blank,
        width_high << 4 | h_blank_high,
        height,
        v_blank,
        height_high << 4 | v_blank_high,
        H_FRONT as u8,
        H_SYNC as u8,
        (V_FRONT as u8) << 4 | timing.v_sync as u8,
        // The high bits of the four values before: none is that large.
        0,
        width_mm,
        height_mm,
        width_mm_high << 4 | height_mm_high,
        0,
        0,
        // Not interlaced, separate sync, horizontal positive, vertical negative: reduced blanking.
        0x1a,
    ]
}

/// A display descriptor with text, at most 13 bytes.
fn text(tag: u8, text: std::fmt::Arguments<'_>) -> [u8; 18] {
    let mut descriptor = [b' '; 18];
    let text = text.to_string();
    let ended = text.bytes().chain(std::iter::once(b'\n')).take(13);
    let start = [0, 0, 0, tag, 0];
    for (place, byte) in descriptor.iter_mut().zip(start.into_iter().chain(ended)) {
        *place = byte;
    }
    descriptor
}

/// The DisplayID block. `None` when the base block has everything.
fn extension(wanted: &Timing, size: Size, scanout: ScanoutId) -> Option<[u8; BLOCK]> {
    let mut smaller = LARGE
        .into_iter()
        .filter(|&(width, height)| is_smaller(width, height, wanted))
        .take(SMALLER_IN_EXTENSION)
        .peekable();
    if wanted.fits_dtd() && smaller.peek().is_none() {
        return None;
    }
    let mut timings = type_one(wanted, true).to_vec();
    for (width, height) in smaller {
        timings.extend_from_slice(&type_one(&Timing::new(width, height, 60_000), false));
    }
    let product = product_identification(scanout);
    let parameters = display_parameters(wanted, size);
    let data = product.len() + parameters.len() + INTERFACE.len() + 3 + timings.len();
    let mut block = Block::new();
    // A DisplayID section: version 1.3, the bytes of its data, a stand-alone display, no more
    // sections.
    block.put(&[0x70, 0x13, data as u8, 3, 0]);
    block.put(&product);
    block.put(&parameters);
    block.put(&INTERFACE);
    // Detailed timings of type I, revision 0.
    block.put(&[0x03, 0, timings.len() as u8]);
    block.put(&timings);
    let section_end = block.used;
    block.checksum(1, section_end);
    block.checksum(0, BLOCK - 1);
    Some(block.bytes)
}

/// DisplayID data block 0x00: maker, product, serial number, week not given, year since 2000, no
/// name.
fn product_identification(scanout: ScanoutId) -> [u8; 15] {
    let [maker_0, maker_1, maker_2] = *MAKER;
    let [product_0, product_1] = PRODUCT.to_le_bytes();
    let [serial_0, serial_1, serial_2, serial_3] = (scanout + 1).to_le_bytes();
    let year = (YEAR - 2000) as u8;
    [
        0x00, 0, 12, maker_0, maker_1, maker_2, product_0, product_1, serial_0, serial_1, serial_2,
        serial_3, 0, year, 0,
    ]
}

/// DisplayID data block 0x01: size in tenths of millimetres, in pixels, gamma 2.2, aspect ratio, 8
/// bits a colour.
fn display_parameters(wanted: &Timing, size: Size) -> [u8; 15] {
    let tenths = |mm: u32| u16::try_from(u64::from(mm) * 10).unwrap_or(0);
    let pixels = |count: u32| count.min(u32::from(u16::MAX)) as u16;
    let [width_0, width_1] = tenths(size.width).to_le_bytes();
    let [height_0, height_1] = tenths(size.height).to_le_bytes();
    let [across_0, across_1] = pixels(wanted.width).to_le_bytes();
    let [down_0, down_1] = pixels(wanted.height).to_le_bytes();
    let long = wanted.width.max(wanted.height) * 100;
    let ratio = (long / wanted.width.min(wanted.height)).saturating_sub(100);
    let ratio = u8::try_from(ratio).unwrap_or(u8::MAX);
    [
        0x01, 0, 12, width_0, width_1, height_0, height_1, across_0, across_1, down_0, down_1, 0,
        120, ratio, 0x77,
    ]
}

/// DisplayID data block 0x0f: DisplayPort 1.2 with 4 lanes, 8 bits a colour as RGB, nothing else.
const INTERFACE: [u8; 13] = [0x0f, 0, 10, 0xa4, 0x12, 0x02, 0, 0, 0, 0, 0, 0, 0];

/// How many modes besides the wanted one the extension block has room for.
const SMALLER_IN_EXTENSION: usize = 2;

/// A detailed timing of DisplayID type I (DisplayID 1.3 §4.4.1): values are stored less one.
fn type_one(timing: &Timing, preferred: bool) -> [u8; 20] {
    let less_one = |value: u32| (value.max(1) - 1) as u16;
    let clock = (timing.clock - 1) as u32;
    let [clock_0, clock_1, clock_2, _] = clock.to_le_bytes();
    let mut bytes = [0; 20];
    let flags = if preferred { 0x80 } else { 0 } | aspect_code(timing.width, timing.height);
    // Horizontal sync positive (bit 15 of its front porch), vertical negative.
    let words = [
        less_one(timing.width),
        less_one(H_BLANK),
        less_one(H_FRONT) | 1 << 15,
        less_one(H_SYNC),
        less_one(timing.height),
        less_one(timing.v_blank),
        less_one(V_FRONT),
        less_one(timing.v_sync),
    ];
    let head = [clock_0, clock_1, clock_2, flags];
    let all = head
        .into_iter()
        .chain(words.into_iter().flat_map(u16::to_le_bytes));
    for (place, byte) in bytes.iter_mut().zip(all) {
        *place = byte;
    }
    bytes
}

/// The aspect ratio in a type I timing's flags.
fn aspect_code(width: u32, height: u32) -> u8 {
    const CODES: [(u32, u32, u8); 7] = [
        (1, 1, 0),
        (5, 4, 1),
        (4, 3, 2),
        (15, 9, 3),
        (16, 9, 4),
        (16, 10, 5),
        (64, 27, 6),
    ];
    const OTHER: u8 = 8;
    CODES
        .into_iter()
        .find(|&(across, down, _)| {
            u64::from(width) * u64::from(down) == u64::from(height) * u64::from(across)
        })
        .map_or(OTHER, |(_, _, code)| code)
}
