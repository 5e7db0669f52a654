//! The features that the transport negotiates: virtio feature bits and vhost-user protocol
//! features.

use virtio_bindings::virtio_config::{VIRTIO_F_RING_RESET, VIRTIO_F_VERSION_1};
use virtio_bindings::virtio_ring::{VIRTIO_RING_F_EVENT_IDX, VIRTIO_RING_F_INDIRECT_DESC};

/// `VHOST_USER_F_PROTOCOL_FEATURES` (vhost-user.rst, "Feature negotiation"). This bit of the virtio
/// feature word belongs to the transport and is never shown to the guest.
pub(super) const PROTOCOL_FEATURES: u64 = 1 << 30;

/// `VIRTIO_RING_F_EVENT_IDX`.
pub(super) const EVENT_IDX: u64 = 1 << VIRTIO_RING_F_EVENT_IDX;

/// The feature bits of the transport and the rings, offered beside those of the device.
///
/// `VIRTIO_F_RING_RESET` is there because QEMU's classic `vhost-user-gpu-pci` refuses a backend
/// without it. `VIRTIO_F_ACCESS_PLATFORM` is not. With it a VMM may put an IOMMU before the device,
/// and the backend would need its addresses translated. Without it the VMM says at start that it
/// cannot do so.
pub(super) const TRANSPORT: u64 = 1 << VIRTIO_F_VERSION_1
    | EVENT_IDX
    | 1 << VIRTIO_RING_F_INDIRECT_DESC
    | 1 << VIRTIO_F_RING_RESET
    | PROTOCOL_FEATURES;

/// The vhost-user protocol features (vhost-user.rst, "Protocol features").
pub(crate) mod protocol {
    /// More than one queue.
    pub(crate) const MQ: u64 = 1 << 0;
    /// Acknowledged requests.
    pub(crate) const REPLY_ACK: u64 = 1 << 3;
    /// A channel for requests of the backend.
    pub(crate) const BACKEND_REQ: u64 = 1 << 5;
    /// Access to the config space.
    pub(crate) const CONFIG: u64 = 1 << 9;
    /// Descriptors on that channel.
    pub(crate) const BACKEND_SEND_FD: u64 = 1 << 10;
    /// `VHOST_USER_RESET_DEVICE`.
    pub(crate) const RESET_DEVICE: u64 = 1 << 13;
    /// Memory regions one by one (`ADD_MEM_REG`, `REM_MEM_REG`), instead of a table of at most
    /// eight. A VM with more mapped blobs than fit in the table could not be started again after a
    /// pause.
    pub(crate) const CONFIGURE_MEM_SLOTS: u64 = 1 << 15;
    /// Shared objects. Hesper uses their refusal as a barrier, see `backend_channel`.
    pub(crate) const SHARED_OBJECT: u64 = 1 << 18;
    /// Shared memory regions, the host-visible window.
    pub(crate) const SHMEM: u64 = 1 << 22;

    /// Everything on offer, without the window.
    pub(crate) const OFFERED: u64 = MQ
        | REPLY_ACK
        | BACKEND_REQ
        | CONFIG
        | BACKEND_SEND_FD
        | RESET_DEVICE
        | CONFIGURE_MEM_SLOTS
        | SHARED_OBJECT;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_offered_bits_are_those_proven_with_qemu() {
        assert_eq!(protocol::OFFERED | protocol::SHMEM, 0x0044_a629);
        assert_eq!(TRANSPORT, 1 << 28 | 1 << 29 | 1 << 30 | 1 << 32 | 1 << 40);
    }
}
