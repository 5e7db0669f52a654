//! `harm HOW`: submits a shader that crashes its driver or keeps it busy for ever, and waits for
//! it.

use ash::vk;

use crate::gpu::Gpu;
use crate::harmful::{ENDLESS, WILD, asking};
use crate::outcome::Stop;

/// The address that the shader writes to: in the first page, which no process has.
const NOWHERE: [u32; 2] = [16, 0];

/// Runs the command. `how` is `wild`, `endless`, or what the shader asks a driver of the tests for.
pub(crate) fn harm(gpu: &Gpu<'_>, how: &str) -> Result<(), Stop> {
    let shader = match how {
        "wild" => WILD.to_vec(),
        "endless" => ENDLESS.to_vec(),
        text => asking(&format!("hesper: {text}")),
    };
    crate::say("harming");
    let program = gpu.program(&shader, &[vk::DescriptorType::STORAGE_BUFFER], [1, 1])?;
    let buffer = gpu.buffer(1)?;
    let set = gpu.storage_set(&program, &[buffer.handle])?;
    gpu.run(|commands| gpu.dispatch(commands, &program, set, &NOWHERE, [1, 1]))
}
