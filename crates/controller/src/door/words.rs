//! What is refused over gRPC, under the names of the service that was called: services of JSON have names of their own for the
//! errors that all services have. The port of AWS's tools gives them by itself ([`hearth_ec2::Face`]).

use std::convert::Infallible;
use std::task::{Context, Poll};

use futures::FutureExt as _;
use futures::future::BoxFuture;
use hearth_api::ApiError;
use hearth_ec2::{Service as Of, json};
use http::{Request, Response};
use tonic::Status;
use tonic::body::Body;
use tower::Service;

#[derive(Debug, Clone)]
pub struct Words<S>(pub S);

impl<S> Service<Request<Body>> for Words<S>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible>,
    S::Future: Send + 'static,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Response<Body>, Infallible>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.0.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let path = request.uri().path().to_owned();
        let answered = self.0.call(request);
        async move { Ok(told(&path, answered.await?)) }.boxed()
    }
}

/// The answer of a call, such as of `/hearth.v1.Ssm/GetParameter`.
pub(super) fn told(path: &str, mut response: Response<Body>) -> Response<Body> {
    let service = path.split('/').nth(1).and_then(|name| name.rsplit('.').next());
    if !service.is_some_and(|name| Of::of(name).speaks_json()) {
        return response;
    }
    let refused = Status::from_header_map(response.headers());
    if let Some(error) = refused.as_ref().and_then(ApiError::from_status) {
        let name = json::code(error.code.as_str()).to_owned();
        // Its headers are of a length that fits (`ApiError::new`).
        let _ = error.status_as(&name).add_header(response.headers_mut());
    }
    response
}

#[cfg(test)]
mod tests {
    use hearth_api::ErrorCode;

    use super::*;

    #[tokio::test]
    async fn general_errors_have_the_names_of_the_service() {
        let refusing = tower::service_fn(|_| async {
            let error = ApiError::new(ErrorCode::InvalidParameterValue, "Name is invalid.");
            Ok::<_, Infallible>(Status::from(error).into_http())
        });
        for (path, expected) in [
            ("/hearth.v1.Ssm/GetParameter", "ValidationException"),
            ("/hearth.v1.Vpcs/DescribeVpcs", "InvalidParameterValue"),
            ("/", "InvalidParameterValue"),
        ] {
            let request = Request::builder().uri(path).body(Body::empty()).unwrap();
            let response = Words(refusing).call(request).await.unwrap();
            let status = Status::from_header_map(response.headers()).unwrap();
            assert_eq!(status.code(), ErrorCode::InvalidParameterValue.grpc());
            let error = ApiError::from_status(&status).unwrap();
            assert_eq!(
                (error.code.as_str(), error.message.as_str()),
                (expected, "Name is invalid.")
            );
        }
    }
}
