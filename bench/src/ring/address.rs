//! Addresses as the ring hands them to the kernel.
#![forbid(unsafe_code)]

use std::net::SocketAddrV4;

/// An IPv4 address in the kernel's form, kept for the life of the process because the kernel reads it asynchronously.
pub struct SockAddr(&'static libc::sockaddr_in);

impl SockAddr {
    /// Its bytes.
    pub(super) const LEN: libc::socklen_t = size_of::<libc::sockaddr_in>() as libc::socklen_t;

    /// Converts and leaks 16 bytes; a scenario makes one per server.
    pub fn new(address: SocketAddrV4) -> Self {
        Self(Box::leak(Box::new(libc::sockaddr_in {
            sin_family: libc::AF_INET as libc::sa_family_t,
            sin_port: address.port().to_be(),
            sin_addr: libc::in_addr {
                s_addr: u32::from(*address.ip()).to_be(),
            },
            sin_zero: [0; 8],
        })))
    }

    /// Where the kernel reads it.
    pub(super) fn as_ptr(&self) -> *const libc::sockaddr {
        std::ptr::from_ref(self.0).cast()
    }
}
