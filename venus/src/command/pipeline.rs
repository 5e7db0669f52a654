//! `VkPipeline`: several at once, some of which may fail.

use std::sync::Arc;

use hesper_venus_protocol::call::Call;
use hesper_venus_protocol::command::{
    CreateComputePipelines, CreateGraphicsPipelines, CreatePipelineCache, GetPipelineCacheData,
};
use hesper_venus_protocol::runtime::{Array, Handle, find_mut};
use hesper_venus_protocol::vk;

use super::lifetime::{create_object, entry};
use super::shape::{Family, create, destroy, forward, special};
use crate::fatal::Fatal;
use crate::object::cache_seal::{CacheSeal, SEAL};
use crate::object::reclamation::Class;
use crate::rules::ignores_attachments;
use crate::session::{Reach, Session, call};

/// The commands of this file.
pub(super) const HANDLERS: Family = &[
    special!(
        CreateGraphicsPipelines => graphics,
        CreateComputePipelines => compute,
        CreatePipelineCache => create_cache,
        GetPipelineCacheData => cache_data,
    ),
    create!(
        CreateShaderModule => p_shader_module,
        CreatePipelineLayout => p_pipeline_layout,
    ),
    destroy!(
        DestroyPipeline => pipeline,
        DestroyShaderModule => shader_module,
        DestroyPipelineCache => pipeline_cache,
        DestroyPipelineLayout => pipeline_layout,
    ),
    forward!(MergePipelineCaches),
];

/// `vkCreateGraphicsPipelines`
fn graphics(
    session: &mut Session<'_>,
    c: &mut CreateGraphicsPipelines<'_>,
) -> Result<vk::Result, Fatal> {
    c.p_create_infos.iter_mut().for_each(drop_ignored);
    several(session, c, |c| &mut c.p_pipelines, |_, _| {})
}

/// Takes out a number of colour attachments that Vulkan ignores. A driver might read as many
/// formats.
fn drop_ignored(info: &mut vk::GraphicsPipelineCreateInfo) {
    let chain = info.p_next.cast_mut();
    // SAFETY: the chain was decoded, and nobody else uses it.
    let rendering = unsafe { find_mut::<vk::PipelineRenderingCreateInfo>(chain) };
    if let Some(rendering) = rendering
        && ignores_attachments(info, rendering)
    {
        rendering.color_attachment_count = 0;
        rendering.p_color_attachment_formats = std::ptr::null();
    }
}

/// `vkCreateComputePipelines`
fn compute(
    session: &mut Session<'_>,
    c: &mut CreateComputePipelines<'_>,
) -> Result<vk::Result, Fatal> {
    // The registry allows a null layout, for descriptor heaps, which no guest sees. Drivers read
    // the layout.
    if c.p_create_infos.iter().any(|info| info.layout.raw() == 0) {
        return Err(Fatal::Invalid {
            command: "vkCreateComputePipelines",
            reason: "a pipeline without a layout",
        });
    }
    several(session, c, |c| &mut c.p_pipelines, |_, _| {})
}

/// Creates pipelines. Those that the driver made get the guest's ids; those that failed are
/// returned as null.
pub(super) fn several<'m, C>(
    session: &mut Session<'_>,
    c: &mut C,
    pipelines: impl for<'c> Fn(&'c mut C) -> &'c mut [vk::Pipeline],
    mut keep: impl FnMut(usize, vk::Pipeline),
) -> Result<vk::Result, Fatal>
where
    C: Call<'m, Return = vk::Result>,
    C::Table: Reach,
{
    let ids: Vec<u64> = pipelines(c).iter().map(|id| id.raw()).collect();
    // A driver that fails completely may not write its outputs.
    pipelines(c).fill(vk::Pipeline::default());
    // A compiler may take seconds.
    let result = session.with_only(Class::Pipeline, |session| call(session, c))?;
    let device = Arc::clone(session.device(C::ID)?);
    let mut entered = Ok(());
    for (index, (slot, id)) in pipelines(c).iter_mut().zip(ids).enumerate() {
        if slot.raw() != 0 {
            keep(index, *slot);
            let objects = &session.state.objects;
            let refused = objects.insert(device.owner, id, *slot, &device.is_gone);
            if refused.is_err() {
                // No guest can name it, so nothing else would destroy it.
                device.destroy_now(&entry(device.owner, *slot));
            }
            entered = entered.and(refused);
            *slot = vk::Pipeline(id);
        } else {
            session.remember_failed(vk::Pipeline(id));
        }
    }
    entered.map(|()| result)
}

/// `vkCreatePipelineCache`: initial data goes to the driver only if the driver made it
/// ([`CacheSeal`]).
fn create_cache(
    session: &mut Session<'_>,
    c: &mut CreatePipelineCache<'_>,
) -> Result<vk::Result, Fatal> {
    let info = &mut *c.p_create_info;
    let sealed: &[u8] = match info.p_initial_data.is_null() {
        true => &[],
        // SAFETY: the decoder made an array of this many bytes, or a null pointer.
        false => unsafe {
            std::slice::from_raw_parts(info.p_initial_data.cast(), info.initial_data_size)
        },
    };
    let data = CacheSeal::of_user().open(sealed).unwrap_or_default();
    if data.is_empty() && !sealed.is_empty() {
        let id = session.state.id;
        log::debug!("context {id}: pipeline-cache data that this host did not make is ignored");
    }
    info.initial_data_size = data.len();
    info.p_initial_data = match data.is_empty() {
        true => std::ptr::null(),
        false => data.as_ptr().cast(),
    };
    create_object(session, c, |c| &mut *c.p_pipeline_cache, |_, _| {})
}

/// `VkPipelineCacheHeaderVersionOne`: what all cache data begins with.
const CACHE_HEADER: usize = 32;

/// `vkGetPipelineCacheData`: the driver's data, and behind it what shows that it is the driver's.
fn cache_data(
    session: &mut Session<'_>,
    c: &mut GetPipelineCacheData<'_>,
) -> Result<vk::Result, Fatal> {
    if c.p_data.is_null() {
        let result = call(session, c)?;
        *c.p_data_size = c.p_data_size.saturating_add(SEAL);
        return Ok(result);
    }
    let room = c.p_data.len().saturating_sub(SEAL);
    if room < CACHE_HEADER {
        *c.p_data_size = 0;
        return Ok(vk::Result::INCOMPLETE);
    }
    *c.p_data_size = room;
    let result = call(session, c)?;
    let is_cut = result == vk::Result::INCOMPLETE;
    if result != vk::Result::SUCCESS && !is_cut {
        *c.p_data_size = 0;
        return Ok(result);
    }
    let mut written = (*c.p_data_size).min(room);
    // Lavapipe does not say how many bytes it wrote if there was room for more.
    if !is_cut && written == room {
        let mut size = 0;
        let mut query = GetPipelineCacheData {
            device: c.device,
            pipeline_cache: c.pipeline_cache,
            p_data_size: &mut size,
            p_data: Array::NULL,
        };
        if call(session, &mut query)? == vk::Result::SUCCESS {
            written = size.min(room);
        }
    }
    let (data, rest) = c.p_data.split_at_mut(written);
    let seal = CacheSeal::of_user().seal(data);
    for (to, from) in rest.iter_mut().zip(seal) {
        *to = from;
    }
    *c.p_data_size = written + SEAL;
    Ok(result)
}
