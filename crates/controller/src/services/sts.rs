//! GetCallerIdentity. Whoever may call acts for the root user of the one account: other users come with policies.

use std::sync::Arc;

use hearth_api::v1::{GetCallerIdentityRequest, GetCallerIdentityResponse, sts_server};
use tonic::{Request, Response, Status};

use crate::app::App;

pub(super) struct Sts(pub(super) Arc<App>);

#[tonic::async_trait]
impl sts_server::Sts for Sts {
    async fn get_caller_identity(
        &self,
        _: Request<GetCallerIdentityRequest>,
    ) -> Result<Response<GetCallerIdentityResponse>, Status> {
        let account = self.0.account();
        Ok(Response::new(GetCallerIdentityResponse {
            user_id: account.to_owned(),
            account: account.to_owned(),
            arn: format!("arn:aws:iam::{account}:root"),
        }))
    }
}
