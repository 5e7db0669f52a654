//! Can imported memory be bound sparsely? The renderer tries it at start: it binds imported memory
//! to a sparse buffer, page by page, and the GPU writes and reads it there.
//!
//! Everything that a guest can map is imported. lavapipe, for example, maps its own allocations
//! into a sparse resource by their descriptors. Imported memory has none, so the binding fails
//! silently and the pixels are wrong. Such a host's sparse features are hidden
//! ([`crate::emulate::sparse`]).

use std::ptr::null_mut;

use ash::{Instance, vk};
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};
use serde::{Deserialize, Serialize};

use super::SharedMemory;
use super::self_test::{Test, failed};
use crate::error::{Error, Result};

/// Larger pages are not tried: the test would take long.
const LARGEST_PAGE: u64 = 4 << 20;
/// What the GPU writes to the first page, and to the second.
const FIRST: u32 = 0x5350_0001;
const SECOND: u32 = 0x5350_0002;
/// The content of the memory before the test.
const BEFORE: u32 = 0xffff_ffff;

/// Whether guests can use sparse binding.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Sparse {
    /// The driver has none.
    #[default]
    Absent,
    /// It works with imported memory.
    Works,
    /// It does not, for this reason.
    Broken(String),
}

/// What a driver says that it can bind sparsely.
#[derive(Clone, Copy, Debug)]
pub(super) struct Abilities {
    /// The device is the processor.
    is_software: bool,
    residency: bool,
    aliased: bool,
    /// Unbound pages read as zero.
    is_strict: bool,
    /// Its buffers can be declared for imported memory. Guests' buffers are then declared, too.
    is_importable: bool,
}

/// What the test does with its buffers.
fn usage() -> vk::BufferUsageFlags {
    vk::BufferUsageFlags::TRANSFER_DST | vk::BufferUsageFlags::TRANSFER_SRC
}

impl Abilities {
    /// What `gpu` can do; `None` without sparse binding.
    pub(super) fn of(instance: &Instance, gpu: vk::PhysicalDevice) -> Option<Self> {
        // SAFETY: the device belongs to the instance.
        let (features, properties) = unsafe {
            (
                instance.get_physical_device_features(gpu),
                instance.get_physical_device_properties(gpu),
            )
        };
        let mut abilities = (features.sparse_binding != 0).then_some(Self {
            is_software: properties.device_type == vk::PhysicalDeviceType::CPU,
            residency: features.sparse_residency_buffer != 0,
            aliased: features.sparse_residency_aliased != 0,
            is_strict: properties.sparse_properties.residency_non_resident_strict != 0,
            is_importable: false,
        })?;
        let asked = vk::PhysicalDeviceExternalBufferInfo::default()
            .flags(abilities.flags())
            .usage(usage())
            .handle_type(vk::ExternalMemoryHandleTypeFlags::HOST_ALLOCATION_EXT);
        let mut answer = vk::ExternalBufferProperties::default();
        // SAFETY: as above.
        unsafe {
            instance.get_physical_device_external_buffer_properties(gpu, &asked, &mut answer);
        }
        let features = answer.external_memory_properties.external_memory_features;
        abilities.is_importable = features.contains(vk::ExternalMemoryFeatureFlags::IMPORTABLE);
        Some(abilities)
    }

    /// The flags of a sparse buffer that can do all that.
    fn flags(self) -> vk::BufferCreateFlags {
        let mut flags = vk::BufferCreateFlags::SPARSE_BINDING;
        if self.residency {
            flags |= vk::BufferCreateFlags::SPARSE_RESIDENCY;
        }
        if self.aliased {
            flags |= vk::BufferCreateFlags::SPARSE_ALIASED;
        }
        flags
    }

    /// The features to enable for the test.
    pub(super) fn features(self) -> vk::PhysicalDeviceFeatures {
        vk::PhysicalDeviceFeatures::default()
            .sparse_binding(true)
            .sparse_residency_buffer(self.residency)
            .sparse_residency_aliased(self.aliased)
    }
}

/// Tries every memory type of `types` that the driver allows for a sparse buffer.
pub(super) fn examine(test: &Test, types: u32) -> Sparse {
    let Some((queue, abilities)) = test.sparse else {
        return Sparse::Absent;
    };
    // lavapipe 26.1 mistakes imported memory for memory with the descriptor 0, and maps that. If it
    // is a file, it would be overwritten.
    if abilities.is_software && can_map_input() {
        return Sparse::Broken("not tried, as a software driver might map standard input".into());
    }
    let tried = Buffer::new(test, abilities).and_then(|buffer| {
        (0..u32::BITS)
            .filter(|index| types & buffer.types & (1 << index) != 0)
            .try_for_each(|index| buffer.look(queue, index))
    });
    match tried {
        Ok(()) => Sparse::Works,
        Err(Error::SparseTest(detail)) => Sparse::Broken(detail),
        Err(error) => Sparse::Broken(error.to_string()),
    }
}

/// Whether standard input is a file that can be written through a mapping.
fn can_map_input() -> bool {
    let (bytes, input) = (super::page_size() as usize, std::io::stdin());
    let both = ProtFlags::READ | ProtFlags::WRITE;
    // SAFETY: a mapping at an address that the system chooses, which nobody touches.
    let mapped = unsafe { mmap(null_mut(), bytes, both, MapFlags::SHARED, input, 0) };
    match mapped {
        Ok(start) => {
            // SAFETY: mapped a moment ago. It can stay if the system does not unmap it.
            let _ = unsafe { munmap(start, bytes) };
            true
        }
        Err(_) => false,
    }
}

/// A sparse buffer, destroyed on drop.
struct Buffer<'t> {
    test: &'t Test,
    abilities: Abilities,
    handle: vk::Buffer,
    /// The driver's page size in bytes.
    page: u64,
    /// Memory types, as bits, that it can be bound to.
    types: u32,
}

impl<'t> Buffer<'t> {
    fn new(test: &'t Test, abilities: Abilities) -> Result<Self> {
        let mut buffer = Self {
            test,
            abilities,
            handle: vk::Buffer::null(),
            page: 1,
            types: 0,
        };
        // A small buffer tells how large pages are.
        for _ in 0..2 {
            let needs = buffer.create(buffer.page * buffer.pages())?;
            buffer.page = needs.alignment.max(super::page_size());
            buffer.types = needs.memory_type_bits;
            if buffer.page > LARGEST_PAGE {
                return Err(Error::SparseTest(format!(
                    "its sparse pages of {} bytes are too large to be tested",
                    buffer.page
                )));
            }
        }
        Ok(buffer)
    }

    /// Two pages, a third that aliases one of them, and a last one that is never bound.
    fn pages(&self) -> u64 {
        2 + u64::from(self.abilities.aliased) + u64::from(self.abilities.residency)
    }

    /// The page that aliases the first, if there is one.
    fn alias(&self) -> Option<u64> {
        self.abilities.aliased.then_some(2)
    }

    /// The page that is never bound, if there is one and it reads as zero.
    fn unbound(&self) -> Option<u64> {
        let has_one = self.abilities.residency && self.abilities.is_strict;
        has_one.then(|| self.pages() - 1)
    }

    fn create(&mut self, size: u64) -> Result<vk::MemoryRequirements> {
        let kind = vk::ExternalMemoryHandleTypeFlags::HOST_ALLOCATION_EXT;
        let mut external = vk::ExternalMemoryBufferCreateInfo::default().handle_types(kind);
        let mut info = vk::BufferCreateInfo::default()
            .flags(self.abilities.flags())
            .size(size)
            .usage(usage());
        if self.abilities.is_importable && self.test.declares.buffers {
            info = info.push_next(&mut external);
        }
        let device = &self.test.device;
        // SAFETY: the device has the features of these flags; the old buffer was never used.
        unsafe {
            device.destroy_buffer(std::mem::take(&mut self.handle), None);
            self.handle = device
                .create_buffer(&info, None)
                .map_err(failed("vkCreateBuffer"))?;
            Ok(device.get_buffer_memory_requirements(self.handle))
        }
    }

    /// Binds memory of type `index`, lets the GPU write and read it, and looks.
    fn look(&self, queue: vk::Queue, index: u32) -> Result<()> {
        let size = 2 * self.page;
        // A driver may mistake imported memory for a structure of its own. It finds nothing there
        // that it could use.
        self.test
            .with_imported(size, index, BEFORE, Error::SparseTest, |imported| {
                self.bind_and_read(queue, imported.memory, imported.results, imported.pages)
            })
    }

    fn bind_and_read(
        &self,
        queue: vk::Queue,
        memory: vk::DeviceMemory,
        to: vk::Buffer,
        pages: &SharedMemory,
    ) -> Result<()> {
        let (page, device) = (self.page, &self.test.device);
        let last_word = page - 4;
        // The two pages swap places, so that no offset is right by chance.
        let mut binds = vec![(0, Some(page)), (1, Some(0))];
        binds.extend(self.alias().map(|alias| (alias, Some(page))));
        self.bind(queue, memory, &binds)?;
        // SAFETY: the buffer is of this device, and the ranges are within it.
        self.test.run(|commands| unsafe {
            device.cmd_fill_buffer(commands, self.handle, 0, page, FIRST);
            device.cmd_fill_buffer(commands, self.handle, page, page, SECOND);
        })?;
        let (at_first, at_second) = (page + last_word, last_word);
        same(
            "the memory of the first page",
            word_of(pages, at_first),
            FIRST,
        )?;
        same(
            "the memory of the second page",
            word_of(pages, at_second),
            SECOND,
        )?;
        let mut expected = vec![("the first page", 0, FIRST), ("the second page", 1, SECOND)];
        expected.extend(
            self.alias()
                .map(|alias| ("the page that aliases the first", alias, FIRST)),
        );
        expected.extend(
            self.unbound()
                .map(|unbound| ("an unbound page", unbound, 0)),
        );
        self.read(to, &expected)?;
        let mut binds = vec![(0, Some(0)), (1, Some(page))];
        let mut expected = vec![
            ("the first page after it was bound again", 0, SECOND),
            ("the second page after it was bound again", 1, FIRST),
        ];
        // An alias that is unbound reads as zero.
        if let Some(alias) = self.alias().filter(|_| self.unbound().is_some()) {
            binds.push((alias, None));
            expected.push(("a page that was unbound", alias, 0));
        }
        self.bind(queue, memory, &binds)?;
        self.read(to, &expected)
    }

    /// Binds pages to offsets of `memory`, or to nothing.
    fn bind(
        &self,
        queue: vk::Queue,
        memory: vk::DeviceMemory,
        to: &[(u64, Option<u64>)],
    ) -> Result<()> {
        let binds: Vec<_> = to
            .iter()
            .map(|(page, offset)| {
                let bind = vk::SparseMemoryBind::default()
                    .resource_offset(page * self.page)
                    .size(self.page);
                match offset {
                    Some(offset) => bind.memory(memory).memory_offset(*offset),
                    None => bind,
                }
            })
            .collect();
        let buffers = [vk::SparseBufferMemoryBindInfo::default()
            .buffer(self.handle)
            .binds(&binds)];
        let info = [vk::BindSparseInfo::default().buffer_binds(&buffers)];
        self.test.wait(|fence| {
            // SAFETY: everything is of this device, and the infos point to live data.
            unsafe { self.test.device.queue_bind_sparse(queue, &info, fence) }
                .map_err(failed("vkQueueBindSparse"))
        })
    }

    /// Lets the GPU read the last word of each page, and compares it.
    fn read(&self, to: vk::Buffer, pages: &[(&str, u64, u32)]) -> Result<()> {
        let device = &self.test.device;
        self.test.run(|commands| {
            for ((_, page, _), place) in pages.iter().zip((0..).step_by(4)) {
                let copy = vk::BufferCopy::default()
                    .src_offset((page + 1) * self.page - 4)
                    .dst_offset(place)
                    .size(4);
                // SAFETY: both buffers are of this device and have these ranges.
                unsafe { device.cmd_copy_buffer(commands, self.handle, to, &[copy]) };
            }
        })?;
        for ((what, _, expected), place) in pages.iter().zip((0..).step_by(4)) {
            same(what, word_of(&self.test.shared, place), *expected)?;
        }
        Ok(())
    }
}

impl Drop for Buffer<'_> {
    fn drop(&mut self) {
        // SAFETY: of the test's device or null, and every submission was waited for.
        unsafe { self.test.device.destroy_buffer(self.handle, None) };
    }
}

/// The word at an offset.
fn word_of(memory: &SharedMemory, offset: u64) -> u32 {
    let mut word = [0; 4];
    let offset = usize::try_from(offset).ok();
    let read = offset.and_then(|offset| memory.read(offset, &mut word));
    read.map_or(BEFORE, |()| u32::from_ne_bytes(word))
}

fn same(what: &str, found: u32, expected: u32) -> Result<()> {
    if found == expected {
        return Ok(());
    }
    Err(Error::SparseTest(format!(
        "{what} reads {found:#x} instead of {expected:#x}"
    )))
}
