//! GetConsoleOutput: asks the instance's host.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use hearth_api::v1::{GetConsoleOutputRequest, GetConsoleOutputResult};
use hearth_api::{ApiError, ErrorCode, Kind};

use crate::app::App;
use crate::services::input;
use crate::state::Instance;
use crate::store::now;
use crate::views;

pub(super) async fn output(
    app: &App,
    request: GetConsoleOutputRequest,
) -> Result<GetConsoleOutputResult, ApiError> {
    let id = input::id(Kind::Instance, &request.instance_id, "InstanceId")?;
    let state = app.state();
    let row = state
        .get::<Instance>(&id)
        .ok_or_else(|| Kind::Instance.not_found(&[&id]))?;
    // Hosts keep the consoles of terminated instances for an hour, as long as these are visible.
    let console = app.sessions.console(&row.host_id, &id).await.map_err(|error| {
        ApiError::new(
            ErrorCode::Unavailable,
            format!("The console of '{id}' cannot be read now: {error}. Try again later."),
        )
    })?;
    Ok(GetConsoleOutputResult {
        instance_id: id.into(),
        timestamp: Some(views::timestamp(match console.written_at {
            0 => now(),
            written_at => written_at,
        })),
        output: BASE64_STANDARD.encode(console.output),
    })
}
