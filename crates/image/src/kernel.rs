//! From a kernel file to a bootable ELF.

#[derive(Debug, thiserror::Error)]
pub enum UnpackError {
    #[error("the kernel is neither an ELF file nor a bzImage")]
    Unknown,
}

/// # Errors
/// Not an x86-64 ELF, nor a bzImage with one.
pub fn unpack(kernel: Vec<u8>) -> Result<Vec<u8>, UnpackError> {
    Ok(kernel)
}
