//! The config space (virtio-v1.4 §5.8.4). The driver writes its question into `select` and
//! `subsel`, and reads the answer and its size. The answer to an unknown question has no bytes.

use super::codes::BUS_VIRTUAL;
use super::description::Description;

/// `VIRTIO_INPUT_CFG_*`.
mod select {
    pub(super) const ID_NAME: u8 = 0x01;
    pub(super) const ID_SERIAL: u8 = 0x02;
    pub(super) const ID_DEVIDS: u8 = 0x03;
    pub(super) const PROP_BITS: u8 = 0x10;
    pub(super) const EV_BITS: u8 = 0x11;
    pub(super) const ABS_INFO: u8 = 0x12;
}

/// Bytes of the config space: select, subsel, size, five reserved bytes, the answer.
const SIZE: usize = HEAD + 128;
const HEAD: usize = 8;

/// Version of the devices, as the guest shows it.
const VERSION: u16 = 1;

/// The config space of one device.
pub(super) struct Config {
    description: &'static Description,
    select: u8,
    subsel: u8,
}

impl Config {
    pub(super) fn new(description: &'static Description) -> Self {
        Self {
            description,
            select: 0,
            subsel: 0,
        }
    }

    /// Takes `bytes` that the driver wrote at `offset`. VMMs write the whole space for one byte of
    /// it, so bytes that are not the driver's to write have no effect.
    pub(super) fn write(&mut self, offset: u32, bytes: &[u8]) {
        let places = [&mut self.select, &mut self.subsel];
        for (place, at) in places.into_iter().zip(0_u32..) {
            if let Some(byte) = at
                .checked_sub(offset)
                .and_then(|index| bytes.get(index as usize))
            {
                *place = *byte;
            }
        }
    }

    /// Copies the space from `offset` on. Bytes past its end are zero.
    pub(super) fn read(&self, offset: u32, into: &mut [u8]) {
        let mut space = [0; SIZE];
        let (head, answer) = space.split_at_mut(HEAD);
        let size = self.answer(answer);
        for (place, byte) in head.iter_mut().zip([self.select, self.subsel, size]) {
            *place = byte;
        }
        into.fill(0);
        let from = space.get(offset as usize..).unwrap_or(&[]);
        for (to, byte) in into.iter_mut().zip(from) {
            *to = *byte;
        }
    }

    /// Writes the answer to the selected question and returns its size.
    fn answer(&self, into: &mut [u8]) -> u8 {
        let device = self.description;
        match (self.select, self.subsel) {
            (select::ID_NAME, 0) => put(into, device.name.as_bytes()),
            (select::ID_SERIAL, 0) => put(into, device.serial.as_bytes()),
            (select::ID_DEVIDS, 0) => {
                let ids = [BUS_VIRTUAL, 0, device.product, VERSION];
                put(into, ids.map(u16::to_le_bytes).as_flattened())
            }
            (select::PROP_BITS, 0) if !device.properties.is_empty() => {
                put(into, device.property_bits().bytes())
            }
            (select::EV_BITS, kind) => device
                .event_bits(kind)
                .map_or(0, |bits| put(into, bits.bytes())),
            (select::ABS_INFO, axis) => device.axis(axis.into()).map_or(0, |largest| {
                // Smallest, largest, fuzz, flat, resolution.
                put(
                    into,
                    [0, largest, 0, 0, 0].map(i32::to_le_bytes).as_flattened(),
                )
            }),
            _ => 0,
        }
    }
}

fn put(into: &mut [u8], bytes: &[u8]) -> u8 {
    let mut size = 0;
    for (place, byte) in into.iter_mut().zip(bytes) {
        *place = *byte;
        size += 1;
    }
    size
}
