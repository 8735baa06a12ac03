//! GetConsoleOutput: asks the instance's host.

use hearth_api::v1::{GetConsoleOutputRequest, GetConsoleOutputResponse};
use hearth_api::{ApiError, ErrorCode, InstanceState, Kind};

use crate::app::App;
use crate::services::{Failure, input, refuse_dry_run};
use crate::store::{instances, now, views};

pub(super) async fn output(
    app: &App,
    request: GetConsoleOutputRequest,
) -> Result<GetConsoleOutputResponse, Failure> {
    let given = std::slice::from_ref(&request.instance_id);
    let given = if request.instance_id.is_empty() {
        &[]
    } else {
        given
    };
    let ids = input::ids(Kind::Instance, given, "InstanceId")?;
    let mut read = app.store.read().await?;
    let Some(row) = instances::by_ids(&mut read, &ids).await?.pop() else {
        return Err(Kind::Instance.not_found(&ids).into());
    };
    drop(read);
    if row.state() == InstanceState::Terminated {
        return Err(ApiError::new(
            ErrorCode::IncorrectInstanceState,
            format!(
                "The instance '{}' is terminated, and its console is gone with it.",
                row.id
            ),
        )
        .into());
    }
    refuse_dry_run(request.dry_run)?;
    let output = app
        .sessions
        .console(&row.host_id, &row.id)
        .await
        .map_err(|error| {
            ApiError::new(
                ErrorCode::Unavailable,
                format!(
                    "The console of '{}' cannot be read now: {error}. Try again later.",
                    row.id
                ),
            )
        })?;
    Ok(GetConsoleOutputResponse {
        instance_id: row.id,
        timestamp: Some(views::timestamp(now())),
        output,
    })
}
