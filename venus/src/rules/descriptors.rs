//! Rules for descriptors: layouts, sets, and what is written into sets.

use std::sync::Arc;

use hesper_venus_protocol::rules::all;
use hesper_venus_protocol::runtime::find;
use hesper_venus_protocol::vk;
use vk::DescriptorType as Type;

use super::checked::{Broken, Checked, broken, demand, gone, within};
use crate::object::facts::{Binding, Facts, PipelineLayout, SetLayout};

/// Drivers keep an array with a place for each binding number up to the highest. No program comes
/// near this; Vulkan has no limit.
const BINDINGS: u64 = 1 << 20;

/// Descriptors of a set. Drivers count its bytes in 32 bits. No program comes near this, and the
/// limits of some drivers are no numbers that they could count with.
const DESCRIPTORS: u64 = 1 << 24;

/// What may be of any type (`VK_EXT_mutable_descriptor_type`).
const MUTABLE: Type = Type(1_000_351_000);

fn is_dynamic(ty: Type) -> bool {
    matches!(
        ty,
        Type::UNIFORM_BUFFER_DYNAMIC | Type::STORAGE_BUFFER_DYNAMIC
    )
}

/// Dynamic offsets that a pipeline layout may have.
fn most_dynamic(facts: &Facts) -> u64 {
    let core = &facts.limits.core;
    u64::from(core.max_descriptor_set_uniform_buffers_dynamic)
        + u64::from(core.max_descriptor_set_storage_buffers_dynamic)
}

/// What is kept of a layout, if it may be made.
pub(super) fn layout(
    facts: &Facts,
    info: &vk::DescriptorSetLayoutCreateInfo,
) -> Result<SetLayout, Broken> {
    // SAFETY: the decoder made an array of this many elements, or a null pointer. The chain was
    // decoded, and nobody else uses it.
    let (wanted, chained) = unsafe {
        (
            all(info.p_bindings, info.binding_count),
            find::<vk::DescriptorSetLayoutBindingFlagsCreateInfo>(info.p_next),
        )
    };
    // SAFETY: as above.
    let flags =
        chained.map(|chained| unsafe { all(chained.p_binding_flags, chained.binding_count) });
    let flags = flags.unwrap_or_default();
    let is_whole = flags.is_empty() || flags.len() == wanted.len();
    demand(
        is_whole,
        "binding flags",
        flags.len() as u64,
        wanted.len() as u64,
    )?;
    let flags = flags
        .iter()
        .copied()
        .chain(std::iter::repeat(Default::default()));
    let mut bindings = Vec::with_capacity(wanted.len());
    let (mut total, mut dynamic) = (0, 0);
    for (binding, flags) in wanted.iter().zip(flags) {
        let count = u64::from(binding.descriptor_count);
        within("a binding number", binding.binding.into(), 1, BINDINGS)?;
        within("descriptors of a set", total, count, DESCRIPTORS)?;
        total += count;
        if is_dynamic(binding.descriptor_type) {
            within("dynamic descriptors", dynamic, count, most_dynamic(facts))?;
            dynamic += count;
        }
        bindings.push(Binding {
            number: binding.binding,
            ty: binding.descriptor_type,
            count: binding.descriptor_count,
            stages: binding.stage_flags,
            flags,
        });
    }
    bindings.sort_unstable_by_key(|binding| binding.number);
    let is_twice = |pair: &[Binding]| matches!(pair, [a, b] if a.number == b.number);
    let twice = bindings.windows(2).find(|pair| is_twice(pair));
    if let Some([binding, _]) = twice {
        return Err(broken("a binding twice", binding.number.into(), 2, 1));
    }
    Ok(SetLayout {
        bindings,
        dynamic: dynamic as u32,
    })
}

pub(super) fn keep_layout(
    facts: &Facts,
    info: &vk::DescriptorSetLayoutCreateInfo,
    made: vk::DescriptorSetLayout,
) {
    // It was checked before it was made.
    if let Ok(kept) = layout(facts, info) {
        if kept.dynamic > 0 {
            facts.add_dynamic();
        }
        facts.set_layouts.insert(made, Arc::new(kept));
    }
}

/// The layouts of sets that are about to be allocated, with their counts of the last binding.
fn wanted(info: &vk::DescriptorSetAllocateInfo) -> (&[vk::DescriptorSetLayout], &[u32]) {
    // SAFETY: the decoder made arrays of as many elements as their counts say, or null pointers.
    // The chain was decoded, and nobody else uses it.
    unsafe {
        let layouts = all(info.p_set_layouts, info.descriptor_set_count);
        let counts = find::<vk::DescriptorSetVariableDescriptorCountAllocateInfo>(info.p_next);
        let counts = counts.map(|c| all(c.p_descriptor_counts, c.descriptor_set_count));
        (layouts, counts.unwrap_or_default())
    }
}

pub(super) fn allocation(facts: &Facts, info: &vk::DescriptorSetAllocateInfo) -> Checked {
    let (layouts, counts) = wanted(info);
    if counts.is_empty() {
        return Ok(());
    }
    let most = layouts.len() as u64;
    demand(
        counts.len() == layouts.len(),
        "variable counts",
        counts.len() as u64,
        most,
    )?;
    for (handle, count) in layouts.iter().zip(counts) {
        let layout = facts.set_layouts.get(*handle);
        let layout = layout.ok_or_else(|| gone(handle.0))?;
        let last = layout.bindings.last();
        if let Some(last) = last.filter(|_| layout.is_variable()) {
            let what = "descriptors of a variable count";
            within(what, 0, u64::from(*count), last.count.into())?;
        }
    }
    Ok(())
}

pub(super) fn keep_sets(
    facts: &Facts,
    info: &vk::DescriptorSetAllocateInfo,
    sets: &[vk::DescriptorSet],
) {
    let (layouts, counts) = wanted(info);
    let counts = counts.iter().copied().chain(std::iter::repeat(0));
    for ((set, layout), count) in sets.iter().zip(layouts).zip(counts) {
        let Some(mut layout) = facts.set_layouts.get(*layout) else {
            // The handle may have been that of another set.
            facts.sets.remove(set.0);
            continue;
        };
        if layout.is_variable() {
            let mut bindings = layout.bindings.clone();
            if let Some(last) = bindings.last_mut() {
                last.count = count;
            }
            let dynamic = layout.dynamic;
            layout = Arc::new(SetLayout { bindings, dynamic });
        }
        facts.sets.insert(*set, layout);
    }
}

pub(super) fn pipeline_layout(facts: &Facts, info: &vk::PipelineLayoutCreateInfo) -> Checked {
    let core = &facts.limits.core;
    let sets = u64::from(info.set_layout_count);
    let what = "sets beyond maxBoundDescriptorSets";
    within(what, 0, sets, core.max_bound_descriptor_sets.into())?;
    let dynamic = of_pipeline_layout(facts, info);
    let dynamic = dynamic.iter().flatten().map(|set| u64::from(set.dynamic));
    within("dynamic descriptors", 0, dynamic.sum(), most_dynamic(facts))?;
    // SAFETY: the decoder made an array of this many elements, or a null pointer.
    let ranges = unsafe { all(info.p_push_constant_ranges, info.push_constant_range_count) };
    let most = u64::from(core.max_push_constants_size);
    let mut ranges = ranges.iter();
    ranges.try_for_each(|range| {
        let what = "push constants beyond maxPushConstantsSize";
        within(what, range.offset.into(), range.size.into(), most)
    })
}

fn of_pipeline_layout(facts: &Facts, info: &vk::PipelineLayoutCreateInfo) -> PipelineLayout {
    // SAFETY: the decoder made an array of this many elements, or a null pointer.
    let sets = unsafe { all(info.p_set_layouts, info.set_layout_count) };
    sets.iter().map(|set| facts.set_layouts.get(*set)).collect()
}

pub(super) fn keep_pipeline_layout(
    facts: &Facts,
    info: &vk::PipelineLayoutCreateInfo,
    layout: vk::PipelineLayout,
) {
    let sets = of_pipeline_layout(facts, info);
    facts.pipeline_layouts.insert(layout, Arc::new(sets));
}

/// The layout of a set of a pipeline layout.
fn set_of(facts: &Facts, handle: vk::PipelineLayout, set: u64) -> Result<Arc<SetLayout>, Broken> {
    let layout = facts.pipeline_layouts.get(handle);
    let layout = layout.ok_or_else(|| gone(handle.0))?;
    let found = usize::try_from(set).ok().and_then(|set| layout.get(set));
    let what = "a set that the pipeline layout does not have";
    let found = found.and_then(Option::clone);
    found.ok_or_else(|| broken(what, set, 1, layout.len() as u64))
}

/// There are that many sets. Drivers read an offset for each dynamic descriptor of the sets, and
/// keep them where the pipeline layout has them.
#[cold]
#[inline(never)]
pub(super) fn bound(
    facts: &Facts,
    handle: vk::PipelineLayout,
    first: u64,
    sets: &[vk::DescriptorSet],
    offsets: &[u32],
) -> Checked {
    let most = facts.limits.core.max_bound_descriptor_sets;
    let what = "sets beyond maxBoundDescriptorSets";
    within(what, first, sets.len() as u64, most.into())?;
    let first = first as usize;
    let layout = facts.pipeline_layouts.get(handle);
    let layout = layout.ok_or_else(|| gone(handle.0))?;
    let mut needed = 0;
    for (index, set) in sets.iter().enumerate().filter(|(_, set)| set.0 != 0) {
        let own = facts.sets.get(*set).ok_or_else(|| gone(set.0))?;
        let place = layout.get(first + index);
        let theirs = place.and_then(Option::as_ref).map_or(0, |set| set.dynamic);
        let what = "a set with other dynamic descriptors than the pipeline layout's";
        demand(
            own.dynamic == theirs,
            what,
            own.dynamic.into(),
            theirs.into(),
        )?;
        needed += u64::from(own.dynamic);
    }
    let given = offsets.len() as u64;
    demand(needed == given, "dynamic offsets", given, needed)
}

/// Fails unless `count` descriptors from an element of a binding on are there. What a binding has
/// no room for goes into the next ones.
fn reaches(
    layout: &SetLayout,
    binding: u32,
    element: u32,
    count: u32,
    ty: Option<Type>,
) -> Checked {
    let place = layout.place(binding);
    let first = place.and_then(|place| layout.bindings.get(place..));
    let what = "a binding that the set does not have";
    let first = first.ok_or_else(|| broken(what, binding.into(), 1, 0))?;
    if count == 0 {
        return Ok(());
    }
    let wanted = u64::from(element) + u64::from(count);
    let mut reached = 0;
    // Bindings without descriptors are skipped.
    for binding in first.iter().filter(|binding| binding.count > 0) {
        if let Some(ty) = ty {
            let is_same = binding.ty == ty || binding.ty == MUTABLE;
            let what = "a descriptor of another type than its binding";
            demand(
                is_same,
                what,
                binding.number.into(),
                binding.ty.0.unsigned_abs().into(),
            )?;
        }
        reached += u64::from(binding.count);
        if reached >= wanted {
            return Ok(());
        }
    }
    let what = "descriptors that the binding does not have";
    within(what, element.into(), count.into(), reached)
}

/// The type of a binding.
fn type_of(layout: &SetLayout, binding: u32) -> Option<Type> {
    let binding = layout.bindings.get(layout.place(binding)?)?;
    Some(binding.ty)
}

/// Fails unless a write is inside of a set with this layout.
fn into(facts: &Facts, layout: &SetLayout, write: &vk::WriteDescriptorSet) -> Checked {
    let count = write.descriptor_count;
    reaches(
        layout,
        write.dst_binding,
        write.dst_array_element,
        count,
        Some(write.descriptor_type),
    )?;
    match write.descriptor_type {
        Type::UNIFORM_BUFFER
        | Type::STORAGE_BUFFER
        | Type::UNIFORM_BUFFER_DYNAMIC
        | Type::STORAGE_BUFFER_DYNAMIC => {
            // SAFETY: the decoder made an array of this many elements, or a null pointer.
            let mut buffers = unsafe { all(write.p_buffer_info, count) }.iter();
            buffers.try_for_each(|info| facts.check_rest(info.buffer, info.offset, info.range))
        }
        Type::INLINE_UNIFORM_BLOCK => {
            // SAFETY: the chain was decoded, and nobody else uses it.
            let block = unsafe { find::<vk::WriteDescriptorSetInlineUniformBlock>(write.p_next) };
            let size = block.map_or(0, |block| block.data_size);
            demand(
                size == count,
                "bytes of a uniform block",
                size.into(),
                count.into(),
            )
        }
        Type::ACCELERATION_STRUCTURE_KHR => {
            // SAFETY: as above.
            let structures =
                unsafe { find::<vk::WriteDescriptorSetAccelerationStructureKHR>(write.p_next) };
            let size = structures.map_or(0, |s| s.acceleration_structure_count);
            demand(
                size == count,
                "acceleration structures",
                size.into(),
                count.into(),
            )
        }
        _ => Ok(()),
    }
}

pub(super) fn write(facts: &Facts, write: &vk::WriteDescriptorSet) -> Checked {
    let layout = facts.sets.get(write.dst_set);
    let layout = layout.ok_or_else(|| gone(write.dst_set.0))?;
    into(facts, &layout, write)
}

pub(super) fn pushed(
    facts: &Facts,
    layout: vk::PipelineLayout,
    set: u64,
    writes: &[vk::WriteDescriptorSet],
) -> Checked {
    let layout = set_of(facts, layout, set)?;
    writes
        .iter()
        .try_for_each(|write| into(facts, &layout, write))
}

pub(super) fn copy(facts: &Facts, copy: &vk::CopyDescriptorSet) -> Checked {
    let of = |set: vk::DescriptorSet| facts.sets.get(set).ok_or_else(|| gone(set.0));
    let (from, to) = (of(copy.src_set)?, of(copy.dst_set)?);
    let count = copy.descriptor_count;
    // A mutable descriptor may be copied from and to one of any type.
    let fixed = |ty: &Type| *ty != MUTABLE;
    let (source, target) = (
        type_of(&from, copy.src_binding),
        type_of(&to, copy.dst_binding),
    );
    let ty = source.filter(fixed).or(target.filter(fixed));
    reaches(&from, copy.src_binding, copy.src_array_element, count, ty)?;
    reaches(&to, copy.dst_binding, copy.dst_array_element, count, ty)
}

pub(super) fn template(facts: &Facts, info: &vk::DescriptorUpdateTemplateCreateInfo) -> Checked {
    let layout = match info.template_type {
        vk::DescriptorUpdateTemplateType::DESCRIPTOR_SET => {
            let handle = info.descriptor_set_layout;
            facts
                .set_layouts
                .get(handle)
                .ok_or_else(|| gone(handle.0))?
        }
        _ => set_of(facts, info.pipeline_layout, info.set.into())?,
    };
    // SAFETY: the decoder made an array of this many elements, or a null pointer.
    let entries = unsafe {
        all(
            info.p_descriptor_update_entries,
            info.descriptor_update_entry_count,
        )
    };
    let mut entries = entries.iter();
    entries.try_for_each(|entry| {
        let vk::DescriptorUpdateTemplateEntry {
            dst_binding,
            dst_array_element,
            descriptor_count,
            descriptor_type,
            ..
        } = *entry;
        let ty = Some(descriptor_type);
        reaches(
            &layout,
            dst_binding,
            dst_array_element,
            descriptor_count,
            ty,
        )
    })
}
