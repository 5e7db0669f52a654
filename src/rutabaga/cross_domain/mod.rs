//! The device's renderer for cross-domain contexts: Wayland on the host's compositor.

mod commands;
mod context;
mod instance;
mod mailbox;
mod memory;
mod ring;
mod shared;

use std::path::PathBuf;
use std::sync::Arc;

use hesper_vhost::renderer::{
    CapsetInfo, Completions, Context, ContextId, NewContext, Renderer, RendererError,
};
use rutabaga_gfx::{RUTABAGA_CAPSET_CROSS_DOMAIN, RutabagaHandler};

use self::context::CrossDomainContext;
use self::shared::Shared;
use super::Unavailable;

/// The largest number of contexts: each needs two threads and a connection to the compositor.
const CONTEXTS: usize = 64;

/// The device's renderer for cross-domain contexts.
pub(super) struct CrossDomain {
    capsets: [CapsetInfo; 1],
    capset: Vec<u8>,
    /// The socket of the compositor.
    compositor: PathBuf,
    /// Each context holds a clone until its thread has ended.
    slot: Arc<()>,
}

impl CrossDomain {
    pub(super) fn new() -> Result<Self, Unavailable> {
        let compositor = compositor()?;
        Self::on(compositor)
    }

    fn on(compositor: PathBuf) -> Result<Self, Unavailable> {
        // A guest must not be offered a compositor that does not answer.
        if let Err(source) = std::os::unix::net::UnixStream::connect(&compositor) {
            return Err(Unavailable::Unreachable {
                path: compositor,
                source,
            });
        }
        let library = |error: rutabaga_gfx::RutabagaError| Unavailable::Library(error.to_string());
        let rutabaga =
            instance::library(&compositor, RutabagaHandler::new(|_| ())).map_err(library)?;
        let (id, max_version, max_size) = rutabaga.get_capset_info(0).map_err(library)?;
        let capset = rutabaga.get_capset(id, max_version).map_err(library)?;
        if id != RUTABAGA_CAPSET_CROSS_DOMAIN || capset.len() as u64 > u64::from(max_size) {
            return Err(Unavailable::Library(format!(
                "it offers capability set {id} of {} bytes instead of cross-domain",
                capset.len()
            )));
        }
        Ok(Self {
            capsets: [CapsetInfo {
                id,
                max_version,
                max_size,
            }],
            capset,
            compositor,
            slot: Arc::new(()),
        })
    }
}

/// The compositor that Wayland programs connect to by default.
fn compositor() -> Result<PathBuf, Unavailable> {
    let display = std::env::var_os("WAYLAND_DISPLAY").unwrap_or_else(|| "wayland-0".into());
    let display = PathBuf::from(display);
    if display.is_absolute() {
        return Ok(display);
    }
    let folder = std::env::var_os("XDG_RUNTIME_DIR").ok_or(Unavailable::NoCompositor)?;
    Ok(PathBuf::from(folder).join(display))
}

impl Renderer for CrossDomain {
    fn capsets(&self) -> &[CapsetInfo] {
        &self.capsets
    }

    fn needs_window(&self) -> bool {
        true
    }

    fn capset(&self, id: u32, version: u32) -> Option<Vec<u8>> {
        let [info] = self.capsets;
        (id == info.id && version <= info.max_version).then(|| self.capset.clone())
    }

    fn create_context(
        &self,
        id: ContextId,
        about: &NewContext<'_>,
        completions: Arc<dyn Completions>,
    ) -> Result<Arc<dyn Context>, RendererError> {
        let slot = Arc::clone(&self.slot);
        // One is the renderer's own and one is the new context's.
        if Arc::strong_count(&slot) > CONTEXTS + 1 {
            return Err(RendererError::OutOfMemory(format!(
                "there are {CONTEXTS} cross-domain contexts already"
            )));
        }
        let shared = Shared::new(id, about.name, completions, slot);
        match CrossDomainContext::start(self.compositor.clone(), shared) {
            Ok(context) => Ok(Arc::new(context)),
            Err(error) => Err(RendererError::OutOfMemory(format!(
                "cannot start the thread of a cross-domain context: {error}"
            ))),
        }
    }
}
