//! CopyImage. A copy shares what is stored, and is available at once; or pending while its snapshots are, which are copies, too.
//! <https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_CopyImage.html>

use std::sync::Arc;

use hearth_api::v1::{CopyImageRequest, CopyImageResult};
use hearth_api::{ApiError, ErrorCode, Id, Kind};
use prost::Message as _;
use serde_json::json;

use super::{check_name, name_is_free};
use crate::app::App;
use crate::services::encryption::Asked;
use crate::services::image_disks::limits;
use crate::services::snapshots::copy::{copied, wanted};
use crate::services::{client_tokens, input};
use crate::state::noun::keep_tags;
use crate::state::{
    AVAILABLE, ClientToken, Image, ImageSource, Noun as _, PENDING, Scope, Snapshot, State, Tags,
};

const ACTION: &str = "CopyImage";

pub(super) async fn copy(app: &App, request: CopyImageRequest) -> Result<CopyImageResult, ApiError> {
    let source_id = input::id(Kind::Image, &request.source_image_id, "SourceImageId")?.to_string();
    check_name(&request.name, &request.description)?;
    input::check_client_token(&request.client_token)?;
    if request.source_region.is_empty() {
        return Err(ApiError::missing("SourceRegion"));
    }
    let made = [Kind::Image, Kind::Snapshot];
    let tags = |kind| {
        Ok::<_, ApiError>(keep_tags(&input::tags_for(
            &request.tag_specifications,
            &made,
            kind,
        )?))
    };
    let (image_tags, snapshot_tags) = (tags(Kind::Image)?, tags(Kind::Snapshot)?);
    let (scope, config, hash) = (app.scope(), app.config.clone(), hash(&request));
    let vault = Arc::clone(&app.vault);
    app.store
        .transact(move |tx| {
            let token = request.client_token.as_str();
            let token_id = ClientToken::id_of(&scope, ACTION, "", token);
            if let Some(before) = client_tokens::recall(tx, token, &token_id, &hash)? {
                return Ok(CopyImageResult {
                    image_id: before.resource_id,
                });
            }
            let source = source(tx, &scope, &request.source_region, &source_id)?.clone();
            name_is_free(tx, &scope, &request.name)?;
            limits::one_more(tx, scope.account_id(), &config, 0)?;
            let id = Id::new(Kind::Image).to_string();
            let asked = Asked {
                encrypted: request.encrypted,
                kms_key_id: &request.kms_key_id,
            };
            let mut devices = source.devices.clone();
            let mut is_available = true;
            for device in &mut devices {
                let Some(of) = device.snapshot_id.as_ref() else {
                    device.encrypted |= request.encrypted.unwrap_or(false);
                    continue;
                };
                let of = tx.of_anybody::<Snapshot>(of).cloned();
                let of = of.ok_or_else(|| Kind::Image.not_found(&[&source_id]))?;
                let description = format!("Copied for {id} from {source_id} of {}", of.id);
                let encryption = wanted(tx, &scope, &of, asked)?.make(tx, &vault, &scope)?;
                let copy = copied(tx, &scope, &of, encryption, &description, snapshot_tags.clone());
                is_available &= copy.is_completed();
                device.snapshot_id = Some(copy.id);
            }
            let mut own_tags = Tags::new();
            if request.copy_image_tags && source.account_id == scope.account_id() {
                own_tags.extend(source.tags.clone());
            }
            own_tags.extend(image_tags);
            if own_tags.len() > input::MAX_TAGS {
                return Err(input::too_many_tags());
            }
            let copy = Image {
                id: id.clone(),
                account_id: scope.account_id().to_owned(),
                region: scope.region().to_owned(),
                name: request.name,
                description: request.description,
                state: AVAILABLE.to_owned(),
                devices,
                source: Some(ImageSource::Image {
                    image_id: source_id.clone(),
                    region: source.region.clone(),
                }),
                is_public: false,
                shared_with: Default::default(),
                created_at: tx.now(),
                tags: own_tags,
                ..source
            };
            tx.put(match is_available {
                true => copy,
                // Its root disk is another, which is not there yet.
                false => Image {
                    state: PENDING.to_owned(),
                    size: 0,
                    digest: String::new(),
                    snapshot: String::new(),
                    encryption: None,
                    ..copy
                },
            });
            client_tokens::keep(tx, &scope, token, token_id, hash, &id);
            tx.audit(json!({ "image": id, "source": source_id, "source_region": request.source_region }));
            let event = match is_available {
                true => "image.registered",
                false => "image.pending",
            };
            tx.event(event, &id);
            Ok(CopyImageResult { image_id: id })
        })
        .await
}

/// Of the request without what does not change the image.
fn hash(request: &CopyImageRequest) -> String {
    let mut request = request.clone();
    request.client_token.clear();
    request.dry_run = false;
    blake3::hash(&request.encode_to_vec()).to_hex().to_string()
}

/// An available image in some region that the caller may use.
fn source<'s>(state: &'s State, scope: &Scope, region: &str, id: &str) -> Result<&'s Image, ApiError> {
    if state.region(region).is_none() {
        let expected = "There is no such region; DescribeRegions tells those that there are.";
        return Err(ApiError::invalid_value("SourceRegion", region, expected));
    }
    let account = scope.account_id();
    let is_there = |row: &&Image| row.region == region && row.is_registered() && row.is_usable_by(account);
    let found = state.of_anybody::<Image>(id).filter(is_there);
    let row = found.ok_or_else(|| Kind::Image.not_found(&[id]))?;
    match row.is_available() {
        true => Ok(row),
        false => Err(ApiError::new(
            ErrorCode::InvalidAmiIdUnavailable,
            format!("The image '{id}' is {}, and not available.", row.state),
        )),
    }
}
