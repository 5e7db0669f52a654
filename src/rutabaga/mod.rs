//! The renderers of `rutabaga_gfx`: Wayland windows on the host's compositor (cross-domain), and
//! OpenGL by virglrenderer (virgl, cargo feature `virgl`).
//!
//! [`cross_domain()`] and [`virgl()`] check whether they work on this host, and make the device's
//! renderers. The difficulty: the library blocks, and it trusts its input. It must not harm other
//! contexts. The module `virgl` describes how virgl ensures that. For cross-domain:
//!
//! - Every context has an instance of the library on a thread of its own
//!   (`cross_domain/instance.rs`). A compositor that does not read stalls that context alone. An
//!   error or a panic ends that context alone.
//! - What the guest submits is checked before the library sees it (`cross_domain/commands.rs`).
//! - The library never has guest memory. It writes its answers to Hesper's memory. When the fence
//!   retires, they are copied to the guest (`cross_domain/ring.rs`), unless the guest has detached
//!   its pages by then.

#[cfg(target_os = "linux")]
mod backlog;
#[cfg(target_os = "linux")]
mod cross_domain;
#[cfg(target_os = "linux")]
mod life;
mod unavailable;
#[cfg(all(target_os = "linux", feature = "virgl"))]
mod virgl;

use std::sync::Arc;

use hesper_vhost::renderer::Renderer;

pub(crate) use self::unavailable::Unavailable;

/// The renderer for Wayland windows on the compositor that the environment names.
///
/// # Errors
/// Why it cannot work here.
pub(crate) fn cross_domain() -> Result<Arc<dyn Renderer>, Unavailable> {
    #[cfg(target_os = "linux")]
    {
        Ok(Arc::new(cross_domain::CrossDomain::new()?))
    }
    #[cfg(not(target_os = "linux"))]
    {
        Err(Unavailable::System)
    }
}

/// The renderer for OpenGL by virglrenderer. Once per process.
///
/// # Errors
/// Why it cannot work here.
pub(crate) fn virgl() -> Result<Arc<dyn Renderer>, Unavailable> {
    #[cfg(all(target_os = "linux", feature = "virgl"))]
    {
        Ok(Arc::new(virgl::Virgl::new()?))
    }
    #[cfg(not(all(target_os = "linux", feature = "virgl")))]
    {
        Err(Unavailable::NotBuilt)
    }
}
