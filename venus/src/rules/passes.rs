//! Rules for render passes, framebuffers and dynamic rendering.

use hesper_venus_protocol::format::Format;
use hesper_venus_protocol::rules::{Limit, Rules, all};
use hesper_venus_protocol::runtime::find;
use hesper_venus_protocol::vk;

use super::checked::{Checked, demand, gone, within};
use crate::object::facts::{Facts, Pass};

/// `VK_ATTACHMENT_UNUSED` and `VK_SUBPASS_EXTERNAL`
const NONE: u32 = !0;

/// Fails unless an index is below `count` or stands for none.
fn indexes(what: &'static str, index: u32, count: u32) -> Checked {
    match index {
        NONE => Ok(()),
        _ => within(what, index.into(), 1, count.into()),
    }
}

const ATTACHMENT: &str = "an attachment that the render pass does not have";
const SUBPASS: &str = "a subpass that the render pass does not have";

/// Fails unless all bits stand for views that may exist.
pub(super) fn views(facts: &Facts, mask: u32) -> Checked {
    let used = 32 - mask.leading_zeros();
    // Without the extension the limit is unknown, and masks are 0.
    within(
        "views beyond maxMultiviewViewCount",
        0,
        used.into(),
        facts.limits.views.into(),
    )
}

/// Attachments that a subpass names, and how many are colours.
struct Subpass<'a> {
    inputs: &'a mut dyn Iterator<Item = u32>,
    others: &'a mut dyn Iterator<Item = u32>,
    colours: u32,
}

impl Subpass<'_> {
    fn check(self, facts: &Facts, attachments: u32) -> Checked {
        facts.within(Limit::ColorAttachments, 0, self.colours.into())?;
        let mut named = self.inputs.chain(self.others);
        named.try_for_each(|index| indexes(ATTACHMENT, index, attachments))
    }
}

pub(super) fn create(facts: &Facts, info: &vk::RenderPassCreateInfo) -> Checked {
    // SAFETY: the decoder made arrays of as many elements as their counts say, or null pointers.
    // The chain was decoded, and nobody else uses it.
    unsafe {
        for subpass in all(info.p_subpasses, info.subpass_count) {
            let colours = subpass.color_attachment_count;
            let resolved = all(subpass.p_resolve_attachments, colours);
            let coloured = all(subpass.p_color_attachments, colours);
            let inputs = all(subpass.p_input_attachments, subpass.input_attachment_count);
            let depth = subpass.p_depth_stencil_attachment.as_ref();
            let kept = all(
                subpass.p_preserve_attachments,
                subpass.preserve_attachment_count,
            );
            let others = coloured.iter().chain(resolved).chain(depth);
            let others = others.map(|reference| reference.attachment);
            Subpass {
                inputs: &mut inputs.iter().map(|reference| reference.attachment),
                others: &mut others.chain(kept.iter().copied()),
                colours,
            }
            .check(facts, info.attachment_count)?;
        }
        for dependency in all(info.p_dependencies, info.dependency_count) {
            indexes(SUBPASS, dependency.src_subpass, info.subpass_count)?;
            indexes(SUBPASS, dependency.dst_subpass, info.subpass_count)?;
        }
        if let Some(multiview) = find::<vk::RenderPassMultiviewCreateInfo>(info.p_next) {
            let (masks, offsets) = (multiview.subpass_count, multiview.dependency_count);
            let is_whole = masks == 0 || masks == info.subpass_count;
            demand(is_whole, SUBPASS, masks.into(), info.subpass_count.into())?;
            let is_whole = offsets == 0 || offsets == info.dependency_count;
            let what = "a view offset without a dependency";
            demand(is_whole, what, offsets.into(), info.dependency_count.into())?;
            let masks = all(multiview.p_view_masks, masks);
            masks.iter().try_for_each(|mask| views(facts, *mask))?;
        }
        if let Some(aspects) = find::<vk::RenderPassInputAttachmentAspectCreateInfo>(info.p_next) {
            let subpasses = all(info.p_subpasses, info.subpass_count);
            for aspect in all(aspects.p_aspect_references, aspects.aspect_reference_count) {
                let subpass = subpasses.get(aspect.subpass as usize);
                let inputs = subpass.map_or(0, |subpass| subpass.input_attachment_count);
                let index = aspect.input_attachment_index;
                within("an input attachment", index.into(), 1, inputs.into())?;
            }
        }
    }
    Ok(())
}

pub(super) fn create2(facts: &Facts, info: &vk::RenderPassCreateInfo2) -> Checked {
    // SAFETY: the decoder made arrays of as many elements as their counts say, or null pointers.
    // The chains were decoded, and nobody else uses them.
    unsafe {
        for subpass in all(info.p_subpasses, info.subpass_count) {
            views(facts, subpass.view_mask)?;
            let colours = subpass.color_attachment_count;
            let resolved = all(subpass.p_resolve_attachments, colours);
            let coloured = all(subpass.p_color_attachments, colours);
            let inputs = all(subpass.p_input_attachments, subpass.input_attachment_count);
            let depth = subpass.p_depth_stencil_attachment.as_ref();
            let kept = all(
                subpass.p_preserve_attachments,
                subpass.preserve_attachment_count,
            );
            let resolve = find::<vk::SubpassDescriptionDepthStencilResolve>(subpass.p_next);
            let resolve =
                resolve.and_then(|resolve| resolve.p_depth_stencil_resolve_attachment.as_ref());
            let rate = find::<vk::FragmentShadingRateAttachmentInfoKHR>(subpass.p_next);
            let rate = rate.and_then(|rate| rate.p_fragment_shading_rate_attachment.as_ref());
            let others = coloured.iter().chain(resolved).chain(depth);
            let others = others.chain(resolve).chain(rate);
            let others = others.map(|reference| reference.attachment);
            Subpass {
                inputs: &mut inputs.iter().map(|reference| reference.attachment),
                others: &mut others.chain(kept.iter().copied()),
                colours,
            }
            .check(facts, info.attachment_count)?;
        }
        for dependency in all(info.p_dependencies, info.dependency_count) {
            indexes(SUBPASS, dependency.src_subpass, info.subpass_count)?;
            indexes(SUBPASS, dependency.dst_subpass, info.subpass_count)?;
        }
    }
    Ok(())
}

/// Whether an attachment takes its clear value when the render pass begins.
fn clears(load: vk::AttachmentLoadOp, stencil: vk::AttachmentLoadOp, format: vk::Format) -> bool {
    let has_stencil = || Format::of(format).is_some_and(|format| format.stencil_bits > 0);
    load == vk::AttachmentLoadOp::CLEAR || stencil == vk::AttachmentLoadOp::CLEAR && has_stencil()
}

/// How many clear values are needed: up to the last attachment that takes one.
fn needed(mut clearing: impl DoubleEndedIterator<Item = bool> + ExactSizeIterator) -> u32 {
    let last = clearing.rposition(|clears| clears);
    last.map_or(0, |index| index as u32 + 1)
}

/// What is kept of a render pass.
pub(super) fn of(info: &vk::RenderPassCreateInfo) -> Pass {
    // SAFETY: the decoder made an array of this many elements, or a null pointer.
    let attachments = unsafe { all(info.p_attachments, info.attachment_count) };
    Pass {
        attachments: info.attachment_count,
        subpasses: info.subpass_count,
        clears: needed(
            attachments
                .iter()
                .map(|a| clears(a.load_op, a.stencil_load_op, a.format)),
        ),
    }
}

/// The same.
pub(super) fn of2(info: &vk::RenderPassCreateInfo2) -> Pass {
    // SAFETY: the decoder made an array of this many elements, or a null pointer.
    let attachments = unsafe { all(info.p_attachments, info.attachment_count) };
    Pass {
        attachments: info.attachment_count,
        subpasses: info.subpass_count,
        clears: needed(
            attachments
                .iter()
                .map(|a| clears(a.load_op, a.stencil_load_op, a.format)),
        ),
    }
}

const ATTACHMENTS: &str = "attachments, but the render pass has other ones";

pub(super) fn framebuffer(facts: &Facts, info: &vk::FramebufferCreateInfo) -> Checked {
    let pass = facts.passes.get(info.render_pass);
    let pass = pass.ok_or_else(|| gone(info.render_pass.0))?;
    let (count, most) = (info.attachment_count, pass.attachments);
    demand(count == most, ATTACHMENTS, count.into(), most.into())
}

pub(super) fn begin(facts: &Facts, info: &vk::RenderPassBeginInfo) -> Checked {
    let (pass, framebuffer) = (info.render_pass, info.framebuffer);
    let known = facts.passes.get(pass).ok_or_else(|| gone(pass.0))?;
    let attachments = facts.framebuffers.get(framebuffer);
    let attachments = attachments.ok_or_else(|| gone(framebuffer.0))?;
    let most = u64::from(known.attachments);
    // A framebuffer of a compatible render pass may have more: those that nobody resolves to.
    demand(
        attachments >= known.attachments,
        ATTACHMENTS,
        attachments.into(),
        most,
    )?;
    let (clears, needed) = (info.clear_value_count, known.clears);
    let what = "clear values, but the render pass needs more";
    demand(clears >= needed, what, clears.into(), needed.into())?;
    // SAFETY: the chain was decoded, and nobody else uses it.
    let views = unsafe { find::<vk::RenderPassAttachmentBeginInfo>(info.p_next) };
    let count = views.map_or(0, |views| views.attachment_count);
    let is_whole = count == 0 || count >= known.attachments;
    demand(is_whole, ATTACHMENTS, count.into(), most)
}

/// Fails unless dynamic rendering may have so many attachments and these views.
pub(super) fn rendering(facts: &Facts, colours: u32, view_mask: u32) -> Checked {
    facts.within(Limit::ColorAttachments, 0, colours.into())?;
    views(facts, view_mask)
}

/// Fails unless the render pass has the subpass. There need not be a render pass.
pub(super) fn subpass(facts: &Facts, pass: vk::RenderPass, subpass: u32) -> Checked {
    if pass.0 == 0 {
        return Ok(());
    }
    let known = facts.passes.get(pass).ok_or_else(|| gone(pass.0))?;
    within(SUBPASS, subpass.into(), 1, known.subpasses.into())
}

pub(super) fn inheritance(facts: &Facts, info: &vk::CommandBufferBeginInfo) -> Checked {
    // SAFETY: decoded as null or a valid struct, with a chain that nobody else uses.
    let inherited = unsafe { info.p_inheritance_info.as_ref() };
    let continues = vk::CommandBufferUsageFlags::RENDER_PASS_CONTINUE;
    let Some(inherited) = inherited.filter(|_| info.flags.contains(continues)) else {
        return Ok(());
    };
    subpass(facts, inherited.render_pass, inherited.subpass)?;
    // SAFETY: as above.
    let dynamic = unsafe { find::<vk::CommandBufferInheritanceRenderingInfo>(inherited.p_next) };
    dynamic.map_or(Ok(()), |dynamic| {
        rendering(facts, dynamic.color_attachment_count, dynamic.view_mask)
    })
}
