//! Calls whose answers come in pages: all of them are fetched, as aws does, unless flags say how many.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use clap::{ArgMatches, Args, FromArgMatches as _};
use prost_reflect::MessageDescriptor;
use serde_json::{Map, Value, json};

use super::{Call, names};
use crate::context::Context;
use crate::error::CliError;

/// How many items of a page another command has printed; botocore's name.
const OFFSET: &str = "boto_truncate_amount";

/// The list that comes in pages; `None` if the call's answer has none.
pub(super) fn list(request: &MessageDescriptor, answer: &MessageDescriptor) -> Option<String> {
    let has = |of: &MessageDescriptor, field| of.get_field_by_name(field).is_some();
    if !has(request, "max_results") || !has(request, "next_token") || !has(answer, "next_token") {
        return None;
    }
    answer
        .fields()
        .find(|field| field.is_list())
        .map(|list| names::member(&list))
}

#[derive(Args)]
#[command(next_help_heading = "Pages")]
pub(super) struct Paging {
    /// Prints so many items at most, and a NextToken if there are more.
    #[arg(long, value_name = "NUMBER")]
    max_items: Option<u32>,
    /// How many items each call asks for.
    #[arg(long, value_name = "NUMBER")]
    page_size: Option<u32>,
    /// Goes on where a command with --max-items ended: its NextToken.
    #[arg(long, value_name = "TOKEN")]
    starting_token: Option<String>,
}

/// The pages of a list.
pub(super) struct Pages<'a> {
    list: &'a str,
    paging: Paging,
}

impl<'a> Pages<'a> {
    /// `None` if one page is asked for.
    ///
    /// # Errors
    /// A page is asked for in two ways.
    pub(super) fn asked(
        list: &'a str,
        matches: &ArgMatches,
        request: &Map<String, Value>,
        context: &Context,
    ) -> Result<Option<Self>, CliError> {
        let paging = Paging::from_arg_matches(matches)?;
        let is_manual = request.contains_key("NextToken") || request.contains_key("MaxResults");
        if context.paginate && !is_manual {
            return Ok(Some(Self { list, paging }));
        }
        let given = [
            paging.starting_token.map(|_| "--starting-token"),
            paging.page_size.map(|_| "--page-size"),
            paging.max_items.map(|_| "--max-items"),
        ];
        let given: Vec<&str> = given.into_iter().flatten().collect();
        match given.is_empty() {
            true => Ok(None),
            false => Err(CliError::Failed(format!(
                "Error during pagination: Cannot specify --no-paginate along with pagination arguments: {}",
                given.join(", ")
            ))),
        }
    }

    /// Fetches the pages, and prints them.
    pub(super) async fn print(
        self,
        call: &'static Call,
        request: Map<String, Value>,
        context: &Context,
    ) -> Result<(), CliError> {
        let list = self.list;
        let (pages, token) = self.fetch(call, request, context).await?;
        let print = |answer: Value| context.printer.print(&call.operation, &answer);
        if context.printer.prints_pages() {
            pages
                .into_iter()
                .try_for_each(|items| print(json!({ list: items })))?;
            return token.map_or(Ok(()), |token| {
                print(json!({ "NextToken": { "NextToken": token } }))
            });
        }
        let mut answer = json!({ list: pages.concat() });
        if let Some(token) = token {
            answer["NextToken"] = token.into();
        }
        print(answer)
    }

    /// The items by page, and the token for those that are left.
    async fn fetch(
        self,
        call: &'static Call,
        mut request: Map<String, Value>,
        context: &Context,
    ) -> Result<(Vec<Vec<Value>>, Option<String>), CliError> {
        let (mut token, mut offset) = self.paging.starting_token.map_or((None, 0), decode);
        let mut left = self.paging.max_items.map_or(usize::MAX, |items| items as usize);
        let mut pages = Vec::new();
        if let Some(size) = self.paging.page_size {
            request.insert("MaxResults".to_owned(), size.into());
        }
        loop {
            if let Some(token) = &token {
                request.insert("NextToken".to_owned(), token.as_str().into());
            }
            let mut answer = call.call(request.clone(), context).await?;
            let next = answer["NextToken"]
                .as_str()
                .filter(|next| !next.is_empty())
                .map(str::to_owned);
            let items = answer[self.list]
                .as_array_mut()
                .map(std::mem::take)
                .unwrap_or_default();
            let mut items: Vec<Value> = items.into_iter().skip(offset).collect();
            if items.len() > left {
                items.truncate(left);
                pages.push(items);
                return Ok((pages, Some(encode(token, Some(offset + left)))));
            }
            left -= items.len();
            pages.push(items);
            match next {
                None => return Ok((pages, None)),
                Some(next) if left == 0 => return Ok((pages, Some(encode(Some(next), None)))),
                Some(next) if token.as_ref() == Some(&next) => {
                    let problem = format!("The same next token was received twice: {next}");
                    return Err(CliError::Failed(format!("Error during pagination: {problem}")));
                }
                next => (token, offset) = (next, 0),
            }
        }
    }
}

/// A token as botocore writes it: that of the service, and how many items of its page are printed already.
fn encode(token: Option<String>, offset: Option<usize>) -> String {
    let offset = offset
        .map(|offset| format!(", \"{OFFSET}\": {offset}"))
        .unwrap_or_default();
    BASE64_STANDARD.encode(format!("{{\"NextToken\": {}{offset}}}", json!(token)))
}

/// Other tokens are the service's own.
fn decode(token: String) -> (Option<String>, usize) {
    let bytes = BASE64_STANDARD.decode(&token).unwrap_or_default();
    match serde_json::from_slice(&bytes) {
        Ok(Value::Object(members)) => {
            let offset = members.get(OFFSET).and_then(Value::as_u64).unwrap_or_default();
            let token = members.get("NextToken").and_then(Value::as_str);
            (
                token.map(str::to_owned),
                usize::try_from(offset).unwrap_or(usize::MAX),
            )
        }
        _ => (Some(token), 0),
    }
}
