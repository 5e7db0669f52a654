//! A screen that records its calls.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::screen::{
    BYTES_PER_PIXEL, CursorImage, FlushState, FlushToken, Picture, Rect, ScanoutId, ScanoutSink,
};

/// What a screen was told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ScreenCall {
    /// `set_scanout` with the picture's size.
    Scanout(ScanoutId, Option<(u32, u32)>),
    /// `flush`.
    Flush(ScanoutId, Rect),
    /// `set_cursor`: position, and hot spot if there is an image.
    Cursor(ScanoutId, (u32, u32), Option<(u32, u32)>),
    /// `move_cursor`.
    Move(ScanoutId, (u32, u32)),
}

#[derive(Default)]
struct Record {
    calls: Vec<ScreenCall>,
    pictures: [Option<Picture>; 16],
    cursor: Option<CursorImage>,
    tokens: Vec<FlushToken>,
}

/// A screen that records all calls, and the pictures that it should show.
#[derive(Default)]
pub struct Recorder {
    record: Mutex<Record>,
    slow: AtomicBool,
}

impl Recorder {
    /// Makes flushes stay pending from now on, or no more.
    pub fn be_slow(&self, slow: bool) {
        self.slow.store(slow, Ordering::Relaxed);
    }

    /// The calls since the last time.
    pub fn calls(&self) -> Vec<ScreenCall> {
        std::mem::take(&mut self.record.lock().unwrap().calls)
    }

    /// The tokens of pending flushes since the last time.
    pub fn tokens(&self) -> Vec<FlushToken> {
        std::mem::take(&mut self.record.lock().unwrap().tokens)
    }

    /// What a scanout shows.
    pub fn picture(&self, scanout: ScanoutId) -> Option<Picture> {
        self.record.lock().unwrap().pictures[scanout as usize].clone()
    }

    /// The pixels that a scanout shows, without padding.
    pub fn pixels(&self, scanout: ScanoutId) -> Vec<u8> {
        let picture = self.picture(scanout).expect("the scanout is on");
        let row = (picture.width * BYTES_PER_PIXEL) as usize;
        let mut pixels = vec![0; row * picture.height as usize];
        for (index, row) in pixels.chunks_mut(row).enumerate() {
            let offset = picture.offset as usize + index * picture.stride as usize;
            picture.memory.read(offset, row);
        }
        pixels
    }

    /// The cursor's image.
    pub fn cursor(&self) -> Option<CursorImage> {
        self.record.lock().unwrap().cursor.clone()
    }
}

impl ScanoutSink for Recorder {
    fn set_scanout(&self, scanout: ScanoutId, picture: Option<&Picture>) {
        let mut record = self.record.lock().unwrap();
        let size = picture.map(|picture| (picture.width, picture.height));
        record.calls.push(ScreenCall::Scanout(scanout, size));
        record.pictures[scanout as usize] = picture.cloned();
    }

    fn flush(&self, scanout: ScanoutId, damage: Rect, done: Option<FlushToken>) -> FlushState {
        let mut record = self.record.lock().unwrap();
        record.calls.push(ScreenCall::Flush(scanout, damage));
        let picture = record.pictures[scanout as usize]
            .as_ref()
            .expect("a flush of a scanout that is on");
        assert!(damage.width > 0 && damage.height > 0, "empty damage");
        assert!(damage.x + damage.width <= picture.width, "damage outside");
        assert!(damage.y + damage.height <= picture.height, "damage outside");
        match done {
            Some(token) if self.slow.load(Ordering::Relaxed) => {
                record.tokens.push(token);
                FlushState::Pending
            }
            _ => FlushState::Done,
        }
    }

    fn set_cursor(&self, scanout: ScanoutId, cursor: Option<&CursorImage>, x: u32, y: u32) {
        let mut record = self.record.lock().unwrap();
        let hot = cursor.map(|cursor| (cursor.hot_x, cursor.hot_y));
        record.calls.push(ScreenCall::Cursor(scanout, (x, y), hot));
        record.cursor = cursor.cloned();
    }

    fn move_cursor(&self, scanout: ScanoutId, x: u32, y: u32) {
        let mut record = self.record.lock().unwrap();
        record.calls.push(ScreenCall::Move(scanout, (x, y)));
    }
}
