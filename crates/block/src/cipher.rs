//! How the sectors of an encrypted disk lie in its files: AES-256-XTS (IEEE 1619) by aws-lc.
//!
//! The data unit is the sector of 512 bytes. Its tweak is its number in the disk, as 16 little-endian bytes, so that equal
//! sectors at two places do not look alike, and a file of ciphertext that is copied as it is stays the same disk.
//!
//! **Zeros.** A sector whose ciphertext is all zeros is a sector of zeros: a hole of the file, which was never written, or was
//! given back. No sector encrypts to it but by a chance of 2^-4096. So a file stays sparse, growth and discards cost what they
//! cost on a plain disk, and whoever sees the file learns which sectors those are; the chunk map tells as much. What a guest
//! writes, zeros included, is always encrypted.
//!
//! XTS keeps contents secret from whoever has the files. It does not find changes of them: whoever can write to the files can
//! put an older sector back, or spoil one.
//!
//! This file is the crate's only one that calls C code. aws-lc-rs has no XTS, so its calls are those of `aws-lc-sys`: one
//! context for each thread that works at a time, whose key stays and whose tweak is set for each sector.

use std::fmt;
use std::io;
use std::ptr::{self, NonNull};
use std::sync::{Mutex, PoisonError};

use aws_lc_sys::{
    EVP_CIPHER_CTX, EVP_CIPHER_CTX_copy, EVP_CIPHER_CTX_free, EVP_CIPHER_CTX_new, EVP_Cipher,
    EVP_CipherInit_ex, EVP_aes_256_xts,
};
use zeroize::Zeroizing;

const UNIT: usize = crate::SECTOR as usize;

/// Bytes of a data key: the key of the data, then that of the tweaks.
pub const KEY_LEN: usize = 64;

/// A data key. It is wiped when it is dropped, and does not show itself.
#[derive(Clone)]
pub struct Key(Box<Zeroizing<[u8; KEY_LEN]>>);

impl Key {
    /// Takes a key's bytes, which are the caller's to wipe; `None`: they are not [`KEY_LEN`].
    #[must_use]
    pub fn new(bytes: &[u8]) -> Option<Self> {
        let mut key = Box::new(Zeroizing::new([0; KEY_LEN]));
        (bytes.len() == KEY_LEN).then(|| {
            key.copy_from_slice(bytes);
            Self(key)
        })
    }

    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        self.0.as_slice()
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key(..)")
    }
}

/// A data key that is ready for use. It is wiped when it is dropped, and does not show itself.
pub struct Cipher {
    encrypts: Contexts,
    decrypts: Contexts,
}

impl fmt::Debug for Cipher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Cipher(..)")
    }
}

impl Cipher {
    /// # Errors
    /// The two halves of the key are equal, which XTS forbids; or there is no memory.
    pub fn new(key: &Key) -> io::Result<Self> {
        Ok(Self {
            encrypts: Contexts::new(Context::new(key, true)?),
            decrypts: Contexts::new(Context::new(key, false)?),
        })
    }

    /// Encrypts sectors in their place; `first` is the number of the first of them.
    ///
    /// # Errors
    /// They are not whole sectors (`InvalidInput`), or there is no memory.
    pub fn encrypt(&self, sectors: &mut [u8], first: u64) -> io::Result<()> {
        check(sectors)?;
        let mut context = self.encrypts.take()?;
        for (sector, number) in sectors.chunks_exact_mut(UNIT).zip(first..) {
            context.pass(sector, number)?;
        }
        self.encrypts.give_back(context);
        Ok(())
    }

    /// Decrypts sectors in their place; those of zeros stay so.
    ///
    /// # Errors
    /// As [`Self::encrypt`].
    pub fn decrypt(&self, sectors: &mut [u8], first: u64) -> io::Result<()> {
        check(sectors)?;
        let mut context = self.decrypts.take()?;
        for (sector, number) in sectors.chunks_exact_mut(UNIT).zip(first..) {
            if sector.iter().any(|&byte| byte != 0) {
                context.pass(sector, number)?;
            }
        }
        self.decrypts.give_back(context);
        Ok(())
    }
}

fn check(sectors: &[u8]) -> io::Result<()> {
    match sectors.len().is_multiple_of(UNIT) {
        true => Ok(()),
        false => Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            format!(
                "{} bytes are no whole sectors of an encrypted disk",
                sectors.len()
            ),
        )),
    }
}

/// Contexts of one key and direction, as many as threads have ever worked with at a time.
struct Contexts {
    first: Context,
    idle: Mutex<Vec<Context>>,
}

impl Contexts {
    fn new(first: Context) -> Self {
        Self {
            first,
            idle: Mutex::default(),
        }
    }

    fn take(&self) -> io::Result<Context> {
        // No code panics while it holds this lock.
        let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        idle.map_or_else(|| self.first.copy(), Ok)
    }

    fn give_back(&self, context: Context) {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        idle.push(context);
    }
}

/// An `EVP_CIPHER_CTX` with a key. aws-lc wipes all memory that it frees (`OPENSSL_free`).
struct Context(NonNull<EVP_CIPHER_CTX>);

// SAFETY: a context is memory that only its owner uses; aws-lc ties none to a thread.
unsafe impl Send for Context {}
// SAFETY: through a shared reference it is only copied, which reads it.
unsafe impl Sync for Context {}

impl Context {
    fn empty() -> io::Result<Self> {
        // SAFETY: it has no conditions.
        let context = unsafe { EVP_CIPHER_CTX_new() };
        NonNull::new(context)
            .map(Self)
            .ok_or_else(|| io::ErrorKind::OutOfMemory.into())
    }

    fn new(key: &Key, encrypts: bool) -> io::Result<Self> {
        let context = Self::empty()?;
        // SAFETY: the context is one, the key has the 64 bytes that AES-256-XTS reads, and there is neither engine nor tweak.
        let is_made = unsafe {
            EVP_CipherInit_ex(
                context.0.as_ptr(),
                EVP_aes_256_xts(),
                ptr::null_mut(),
                key.bytes().as_ptr(),
                ptr::null(),
                i32::from(encrypts),
            )
        };
        match is_made {
            1 => Ok(context),
            _ => Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "the data key is none of AES-256-XTS: its halves are equal",
            )),
        }
    }

    fn copy(&self) -> io::Result<Self> {
        let copy = Self::empty()?;
        // SAFETY: both are contexts, and nobody changes the one that is copied.
        match unsafe { EVP_CIPHER_CTX_copy(copy.0.as_ptr(), self.0.as_ptr()) } {
            1 => Ok(copy),
            _ => Err(io::ErrorKind::OutOfMemory.into()),
        }
    }

    /// Encrypts or decrypts one sector in its place.
    fn pass(&mut self, sector: &mut [u8], number: u64) -> io::Result<()> {
        let mut tweak = [0; 16];
        tweak[..8].copy_from_slice(&number.to_le_bytes());
        let (bytes, len) = (sector.as_mut_ptr(), sector.len());
        // SAFETY: the context has its cipher and key, which stay; the tweak has the 16 bytes that are read of it, and -1 keeps
        // the direction. Input and output are the same `len` bytes, which XTS allows.
        let is_done = unsafe {
            EVP_CipherInit_ex(
                self.0.as_ptr(),
                ptr::null(),
                ptr::null_mut(),
                ptr::null(),
                tweak.as_ptr(),
                -1,
            ) == 1
                && EVP_Cipher(self.0.as_ptr(), bytes, bytes, len) == 1
        };
        match is_done {
            true => Ok(()),
            false => Err(io::Error::other("aws-lc refuses a sector")),
        }
    }
}

impl Drop for Context {
    fn drop(&mut self) {
        // SAFETY: it is ours, and nobody has it after this.
        unsafe { EVP_CIPHER_CTX_free(self.0.as_ptr()) };
    }
}

#[cfg(test)]
pub(crate) mod tests;
