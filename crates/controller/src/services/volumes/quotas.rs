//! How much an account may have of volumes of each type, wherever they are, and whether anything of them lies anywhere.
//! <https://docs.aws.amazon.com/ebs/latest/userguide/ebs-resource-quotas.html>

use std::collections::BTreeMap;

use hearth_api::{ApiError, ErrorCode};

use crate::catalog::volume_types::{VolumeSpec, VolumeType};
use crate::state::{Scope, State, Volume};

/// TiB of the volumes of one type.
pub(in crate::services) const MAX_TIB: usize = 50;

/// IOPS of all io1 volumes.
pub(in crate::services) const IO1_IOPS: usize = 300_000;
/// IOPS of all io2 volumes.
pub(in crate::services) const IO2_IOPS: usize = 100_000;

fn max_iops(kind: VolumeType) -> Option<usize> {
    match kind {
        VolumeType::Io1 => Some(IO1_IOPS),
        VolumeType::Io2 => Some(IO2_IOPS),
        _ => None,
    }
}

/// # Errors
/// `VolumeLimitExceeded`, `MaxIOPSLimitExceeded`: more than an account may have, when it has these, too. `instead`: what one
/// of them was before.
pub(in crate::services) fn check(
    state: &State,
    scope: &Scope,
    wanted: impl IntoIterator<Item = VolumeSpec>,
    instead: Option<&VolumeSpec>,
) -> Result<(), ApiError> {
    let mut more: BTreeMap<VolumeType, (VolumeSpec, u64, u64)> = BTreeMap::new();
    for spec in wanted {
        let (_, gib, iops) = more.entry(spec.volume_type).or_insert((spec, 0, 0));
        *gib += spec.size_gib;
        *iops += u64::from(spec.iops.unwrap_or(0));
    }
    for (kind, (spec, more_gib, more_iops)) in more {
        let [mut gib, mut iops] = state.sum(&Volume::OF_TYPE, &Volume::quota_key(scope, &spec));
        let (had_gib, had_iops) = (gib, iops);
        if let Some(before) = instead.filter(|before| before.volume_type == kind) {
            gib = gib.saturating_sub(before.size_gib);
            iops = iops.saturating_sub(before.iops.unwrap_or(0).into());
        }
        let name = kind.as_str();
        // What is not more than before is not refused, whatever the limit became.
        if gib + more_gib > (MAX_TIB as u64) << 10 && gib + more_gib > had_gib {
            return Err(ApiError::new(
                ErrorCode::VolumeLimitExceeded,
                format!(
                    "You have exceeded your maximum {name} storage limit of {MAX_TIB} TiB in this region: {gib} GiB exist, \
                     and {more_gib} are asked for. Delete volumes of this type."
                ),
            ));
        }
        if let Some(most) = max_iops(kind)
            && iops + more_iops > most as u64
            && iops + more_iops > had_iops
        {
            return Err(ApiError::new(
                ErrorCode::MaxIopsLimitExceeded,
                format!(
                    "You have exceeded your maximum {name} IOPS limit of {most} in this region: {iops} exist, and \
                     {more_iops} are asked for. Delete volumes of this type."
                ),
            ));
        }
    }
    Ok(())
}
