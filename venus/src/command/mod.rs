//! The commands of the protocol and their handlers.
//!
//! Each family of commands has a file. It lists its commands with their handlers in `HANDLERS`;
//! [`shape`] has a macro for each usual kind of handler. It also holds the functions of the
//! commands that need their own. [`HANDLERS`] puts the lists together, and the compiler checks that
//! each command of the protocol has exactly one handler or is [`UNSERVED`] for a reason.
//!
//! A command without a handler ends the context of the guest that sends it.

mod acceleration_structure;
mod arrays;
mod barrier;
mod bind_memory;
mod buffer;
mod cmd;
mod command_buffer;
mod descriptor_set;
mod device;
mod event;
mod fence;
mod format;
mod host_copy;
mod image;
mod instance;
mod lifetime;
mod limits;
mod memory;
mod memory_requirements;
mod physical_device;
mod pipeline;
mod query_pool;
mod queue;
mod ray_tracing;
mod render_pass;
mod sampler;
mod semaphore;
mod shape;
mod transport;

use hesper_venus_protocol::{COMMAND_COUNT, COMMANDS, CommandId};

use crate::session::Handlers;
use shape::Family;

/// All files of commands.
const FAMILIES: &[Family] = &[
    transport::HANDLERS,
    instance::HANDLERS,
    physical_device::HANDLERS,
    format::HANDLERS,
    device::HANDLERS,
    queue::HANDLERS,
    memory::HANDLERS,
    bind_memory::HANDLERS,
    memory_requirements::HANDLERS,
    buffer::HANDLERS,
    image::HANDLERS,
    host_copy::HANDLERS,
    fence::HANDLERS,
    semaphore::HANDLERS,
    event::HANDLERS,
    query_pool::HANDLERS,
    descriptor_set::HANDLERS,
    sampler::HANDLERS,
    pipeline::HANDLERS,
    ray_tracing::HANDLERS,
    acceleration_structure::HANDLERS,
    render_pass::HANDLERS,
    command_buffer::HANDLERS,
    barrier::HANDLERS,
    cmd::HANDLERS,
];

/// Commands that are not served, by the reason. A guest that sends one loses its context.
const UNSERVED: &[(&str, &[CommandId])] = {
    use CommandId::*;
    &[
        (
            "function pointers, layers and tools are those of the guest",
            &[
                GetInstanceProcAddr,
                GetDeviceProcAddr,
                EnumerateInstanceLayerProperties,
                EnumerateDeviceLayerProperties,
                GetPhysicalDeviceToolProperties,
            ],
        ),
        (
            "the guest maps a blob, and its memory is coherent",
            &[
                MapMemory,
                MapMemory2,
                UnmapMemory,
                UnmapMemory2,
                FlushMappedMemoryRanges,
                InvalidateMappedMemoryRanges,
            ],
        ),
        (
            "file descriptors exist in the guest only",
            &[
                GetMemoryFdKHR,
                GetMemoryFdPropertiesKHR,
                ImportFenceFdKHR,
                GetFenceFdKHR,
                ImportSemaphoreFdKHR,
                GetSemaphoreFdKHR,
            ],
        ),
        (
            "the guest's driver sends the descriptor writes that a template stands for",
            &[
                UpdateDescriptorSetWithTemplate,
                CmdPushDescriptorSetWithTemplate,
                CmdPushDescriptorSetWithTemplate2,
            ],
        ),
        (
            "the guest's driver keeps private data itself",
            &[SetPrivateData, GetPrivateData],
        ),
        (
            "vkCopyMemoryToImageMESA and vkCopyImageToMemoryMESA carry the bytes",
            &[CopyMemoryToImage, CopyImageToMemory],
        ),
        (
            "works on memory of the guest's process, which the renderer cannot reach",
            &[
                BuildAccelerationStructuresKHR,
                CopyAccelerationStructureKHR,
                CopyAccelerationStructureToMemoryKHR,
                CopyMemoryToAccelerationStructureKHR,
            ],
        ),
        (
            "the guest's driver implements deferred operations itself",
            &[
                CreateDeferredOperationKHR,
                DestroyDeferredOperationKHR,
                GetDeferredOperationMaxConcurrencyKHR,
                GetDeferredOperationResultKHR,
                DeferredOperationJoinKHR,
            ],
        ),
        (
            "descriptor heaps are hidden from guests",
            &[
                WriteSamplerDescriptorMESA,
                WriteResourceDescriptorMESA,
                WriteSamplerDescriptorsEXT,
                WriteResourceDescriptorsEXT,
            ],
        ),
    ]
};

/// The handlers, by command number.
pub(crate) static HANDLERS: Handlers = table();

/// Puts the lists together. An error in them stops the compiler.
#[expect(
    clippy::indexing_slicing,
    reason = "evaluated by the compiler, which checks every index"
)]
const fn table() -> Handlers {
    let mut handlers = Handlers {
        all: [None; COMMAND_COUNT],
        recorders: [None; COMMAND_COUNT],
    };
    let mut family = 0;
    while family < FAMILIES.len() {
        let mut list = 0;
        while list < FAMILIES[family].len() {
            let mut at = 0;
            while at < FAMILIES[family][list].len() {
                let served = FAMILIES[family][list][at];
                let command = served.command;
                if handlers.all[command as usize].is_some() {
                    refuse(
                        command,
                        "is listed twice: leave it in one HANDLERS of venus/src/command/ only",
                    );
                }
                handlers.all[command as usize] = Some(served.handler);
                handlers.recorders[command as usize] = served.recorder;
                at += 1;
            }
            list += 1;
        }
        family += 1;
    }
    let mut is_unserved = [false; COMMAND_COUNT];
    let mut reason = 0;
    while reason < UNSERVED.len() {
        let mut at = 0;
        while at < UNSERVED[reason].1.len() {
            let command = UNSERVED[reason].1[at];
            if handlers.all[command as usize].is_some() {
                refuse(
                    command,
                    "has a handler and is UNSERVED: take it out of one of them in venus/src/command/",
                );
            }
            if is_unserved[command as usize] {
                refuse(command, "is UNSERVED twice: leave it there once");
            }
            is_unserved[command as usize] = true;
            at += 1;
        }
        reason += 1;
    }
    let mut number = 0;
    while number < COMMAND_COUNT {
        if let Some(command) = &COMMANDS[number]
            && handlers.all[number].is_none()
            && !is_unserved[number]
        {
            refuse(
                command.id,
                "has no handler: list it in HANDLERS of a file of venus/src/command/, or in UNSERVED with the reason",
            );
        }
        number += 1;
    }
    handlers
}

/// Stops the compiler with a message about a command.
#[expect(
    clippy::indexing_slicing,
    clippy::panic,
    reason = "evaluated by the compiler, which checks every index and shows the message"
)]
const fn refuse(command: CommandId, what: &str) -> ! {
    let Some(info) = &COMMANDS[command as usize] else {
        panic!("a command has a number that the protocol does not have");
    };
    let (name, what) = (info.name.as_bytes(), what.as_bytes());
    let mut text = [b' '; 256];
    let mut at = 0;
    while at < name.len() {
        text[at] = name[at];
        at += 1;
    }
    at = 0;
    while at < what.len() {
        text[name.len() + 1 + at] = what[at];
        at += 1;
    }
    match std::str::from_utf8(&text) {
        Ok(text) => panic!("{}", text.trim_ascii_end()),
        Err(_) => panic!("the message is not UTF-8"),
    }
}
