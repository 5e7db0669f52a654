//! A ring as a guest's driver has it.

use hesper_venus_protocol::{command, vk};

use crate::{Memory, Shared, VenusGuest, until};

/// Status bit: the renderer sleeps and wants to be notified.
pub const IDLE: u32 = 1;
/// Status bit: the renderer has given the ring up.
pub const FATAL: u32 = 2;
/// Status bit: the renderer has been alive since the guest cleared this.
pub const ALIVE: u32 = 4;

// Offsets in the ring's resource.
const HEAD: usize = 0;
const TAIL: usize = 64;
const STATUS: usize = 128;
const BUFFER: usize = 192;

/// How a ring is made.
#[derive(Clone, Copy, Debug)]
pub struct RingOptions {
    /// Bytes of commands that it holds: a power of two.
    pub buffer: usize,
    /// Bytes of its resource behind the buffer.
    pub behind: usize,
    /// How often the renderer sets [`ALIVE`], in microseconds; 0 for never.
    pub reporting_period: u32,
}

impl Default for RingOptions {
    /// 4096 bytes of commands, nothing else.
    fn default() -> Self {
        Self {
            buffer: 4096,
            behind: 0,
            reporting_period: 0,
        }
    }
}

/// A ring: head, tail, status and buffer in one resource.
pub struct Ring<'g, G: VenusGuest> {
    guest: &'g G,
    id: u64,
    options: RingOptions,
    /// Its resource.
    pub shared: Shared<G::Memory>,
    tail: u32,
}

impl<'g, G: VenusGuest> Ring<'g, G> {
    /// A ring of the usual kind.
    pub fn new(guest: &'g G, id: u64) -> Self {
        Self::with(guest, id, RingOptions::default())
    }

    /// A ring with these options. It exists when this returns.
    pub fn with(guest: &'g G, id: u64, options: RingOptions) -> Self {
        let size = BUFFER + options.buffer;
        let shared = guest.share(size + options.behind);
        let monitor = vk::RingMonitorInfoMESA {
            max_reporting_period_microseconds: options.reporting_period,
            ..Default::default()
        };
        let mut info = vk::RingCreateInfoMESA {
            resource_id: shared.resource,
            size,
            idle_timeout: 1_000_000,
            head_offset: HEAD,
            tail_offset: TAIL,
            status_offset: STATUS,
            buffer_offset: BUFFER,
            buffer_size: options.buffer,
            ..Default::default()
        };
        if options.reporting_period > 0 {
            info.p_next = (&raw const monitor).cast();
        }
        guest.send(&command::CreateRingMESA {
            ring: id,
            p_create_info: &mut info,
        });
        guest.wait_fence(0);
        Self {
            guest,
            id,
            options,
            shared,
            tail: 0,
        }
    }

    /// Where the bytes behind the buffer begin in the resource.
    pub fn behind(&self) -> usize {
        BUFFER + self.options.buffer
    }

    /// Bytes that the renderer has consumed.
    pub fn head(&self) -> u32 {
        self.shared.memory.word(HEAD)
    }

    /// Its status bits.
    pub fn status(&self) -> u32 {
        self.shared.memory.word(STATUS)
    }

    /// Writes its status bits.
    pub fn set_status(&self, status: u32) {
        self.shared.memory.set_word(STATUS, status);
    }

    /// Bytes that fit until the ring is full.
    pub fn room(&self) -> usize {
        self.options.buffer - self.tail.wrapping_sub(self.head()) as usize
    }

    /// Writes commands, and notifies if the ring sleeps.
    pub fn write(&mut self, stream: &[u8]) {
        assert!(stream.len() <= self.room());
        for byte in stream {
            let at = BUFFER + (self.tail as usize & (self.options.buffer - 1));
            self.shared.memory.write(at, &[*byte]);
            self.tail = self.tail.wrapping_add(1);
        }
        self.shared.memory.set_word(TAIL, self.tail);
        if self.status() & IDLE != 0 {
            self.guest.send(&command::NotifyRingMESA {
                ring: self.id,
                seqno: self.tail,
                flags: vk::RingNotifyFlagsMESA::default(),
            });
        }
    }

    /// Whether everything is consumed.
    pub fn is_done(&self) -> bool {
        self.head() == self.tail
    }

    /// Waits until everything is consumed.
    #[track_caller]
    pub fn wait(&self) {
        self.until("the commands are consumed", || self.is_done());
    }

    /// Waits until something is so.
    #[track_caller]
    pub fn until(&self, what: &str, condition: impl Fn() -> bool) {
        until(what, condition);
    }
}
