//! Requests to disks that lie encrypted, or begin with what does: they go through memory of the engine's own.

use super::super::bounce::Part;
use super::{InFlight, LARGE, MAX_PARTS, NUMBER_BITS, Outcome, Uring, entry};
use crate::engine::pool::transfer;
use crate::engine::{Completion, Request};
use crate::sectors::is_whole;
use crate::{Access, Place};

/// Bytes in flight that are encrypted or decrypted here. What is more goes to the pool.
const BOUNCED: usize = 4 << 20;
/// Bytes of an operation that moves what is encrypted.
const PIECE: u64 = 128 << 10;

impl Uring {
    /// The parts of a transfer of a disk that is encrypted, or begins with what is, if the ring can move them all.
    fn parts(&self, request: &Request, access: Access) -> Option<Vec<Part>> {
        let (mut parts, mut done) = (Vec::new(), 0);
        while done < request.len {
            let offset = request.offset + done;
            // Of a large one, some is encrypted or decrypted while the kernel moves the rest.
            let most = (request.len - done).min(PIECE);
            let extent = self.disk.locate(offset, most, access);
            let place = extent.place?;
            let cipher = self.disk.cipher(place.backing).cloned();
            let needs_whole = cipher.is_some() || *self.direct.get(place.backing)?;
            if parts.len() == MAX_PARTS || needs_whole && !is_whole(place.offset, extent.len) {
                return None;
            }
            parts.push(Part {
                place,
                len: usize::try_from(extent.len).ok()?,
                skip: done,
                cipher,
            });
            done += extent.len;
        }
        Some(parts)
    }

    /// As [`Engine::submit`], of a disk that is encrypted or begins with what is.
    pub(super) fn submit_bounced(&mut self, request: Request, access: Access) -> bool {
        let Some(parts) = self.parts(&request, access) else {
            self.hand_over(request);
            return false;
        };
        let places: Vec<Place> = parts.iter().map(|part| part.place).collect();
        if (access == Access::Write || request.len >= LARGE) && self.is_cached(&places) {
            let result = transfer(&*self.disk, &request, access);
            self.done.push(Completion { request, result });
            return true;
        }
        if self.bounced + request.len as usize > BOUNCED || self.requests.len() >= 1 << NUMBER_BITS {
            self.hand_over(request);
            return false;
        }
        self.begin_bounced(request, access, parts);
        false
    }

    /// Puts the parts of a request into the ring.
    fn begin_bounced(&mut self, request: Request, access: Access, parts: Vec<Part>) {
        let number = self.number();
        let mut in_flight = InFlight::new(request, Vec::new());
        let are_several = parts.len() > 1;
        for part in parts {
            let (place, len) = (part.place, part.len);
            let mut bounce = self.spare.bounce(part);
            if access == Access::Write {
                // SAFETY: the buffers are mapped until the request is reaped, by the contract of `submit`.
                if let Err(error) = unsafe { bounce.take(&in_flight.request.buffers) } {
                    in_flight.outcome = Outcome::Bad(error);
                    break;
                }
            }
            let entry = entry(access, place, &[bounce.segment()], number, in_flight.operations);
            // SAFETY: one piece is not read from its list. The memory of the bounce stays where it is until the operation
            // has ended.
            if unsafe { self.push(&entry) }.is_err() {
                in_flight.outcome = Outcome::Again;
                break;
            }
            self.bounced += len;
            in_flight.bounces.push(Some(bounce));
            in_flight.operations += 1;
            if are_several {
                // It begins while the next one is encrypted. That it fails shows at the next `kick`.
                let _ = self.enter(0);
            }
        }
        self.keep(number, in_flight);
    }
}
