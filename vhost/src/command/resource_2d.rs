//! 2D resources: `RESOURCE_CREATE_2D`, `TRANSFER_TO_HOST_2D`.

use super::drawn_2d;
use crate::engine::{Call, Progress};
use crate::error::CommandError;
use crate::resource::{Body, Resource, Resource2d, Rows, check_inside, copy_rows};
use crate::screen::{BYTES_PER_PIXEL, Rect};
use crate::surface::Surface;
use crate::wire;

pub(super) fn resource_create_2d(
    call: &Call<'_>,
    create: &wire::ResourceCreate2d,
) -> Result<Progress, CommandError> {
    let id = create.resource_id.get();
    let (width, height) = (create.width.get(), create.height.get());
    let format = wire::pixel_format(create.format.get())
        .ok_or(CommandError::BadFormat(create.format.get()))?;
    if width == 0 || height == 0 {
        return Err(CommandError::BadValue {
            what: "a side of the resource",
            value: 0,
            must: "at least 1",
        });
    }
    call.state()?.check_new_resource(id)?;
    let bytes = u128::from(width) * u128::from(height) * u128::from(BYTES_PER_PIXEL);
    let bytes = u64::try_from(bytes).unwrap_or(u64::MAX);
    let pixels = Surface::new(bytes, &call.engine.pools.pixels)?;
    let image = Resource2d {
        pixels,
        format,
        width,
        height,
        drawn: None,
    };
    call.state()?
        .resources
        .insert(id, Resource::new(Body::Resource2d(image), None));
    Ok(Progress::ok())
}

pub(super) fn transfer_to_host_2d(
    call: &Call<'_>,
    transfer: &wire::TransferToHost2d,
) -> Result<Progress, CommandError> {
    let id = transfer.resource_id.get();
    let rect = Rect::from(transfer.rect);
    let (image, backing) = {
        let mut state = call.state()?;
        let resource = state.resource(id)?;
        let image = match &resource.body {
            Body::Resource2d(image) => image.clone(),
            // Nothing to copy: the pixels of a blob are in place. Linux sends transfers for cursor
            // images that are blobs.
            Body::GuestBlob(_) | Body::HostBlob(_) => return Ok(Progress::ok()),
            Body::Resource3d(_) => {
                return Err(CommandError::WrongResource {
                    id,
                    is: resource.kind(),
                    needs: "a 2D resource (TRANSFER_TO_HOST_3D fills others)",
                });
            }
        };
        let backing = resource
            .backing
            .clone()
            .ok_or(CommandError::NoBacking(id))?;
        (image, backing)
    };
    check_inside(rect, image.width, image.height)?;
    let source = Rows {
        offset: transfer.offset.get(),
        stride: image.stride(),
    };
    match &image.drawn {
        Some(drawn) => drawn_2d::copy_changes(call.memory, &backing, source, &image, drawn, rect)?,
        None => copy_rows(
            call.memory,
            &backing,
            source,
            &image.pixels,
            image.stride(),
            rect,
        )?,
    }
    Ok(Progress::ok())
}
