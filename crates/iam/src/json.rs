//! JSON in which no object has two members of one name.
//! <https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_grammar.html>

use std::collections::BTreeMap;
use std::fmt;

use serde::de::{Error, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};

use crate::malformed::Malformed;

pub(crate) type Object = BTreeMap<String, Json>;

#[derive(Debug, Clone)]
pub(crate) enum Json {
    Null,
    Bool(bool),
    /// As text: policies may write numbers as either.
    Number(String),
    Text(String),
    List(Vec<Json>),
    Object(Object),
}

impl Json {
    /// `serde_json` limits the depth.
    pub fn parse(text: &str) -> Result<Self, Malformed> {
        let invalid = |error| Malformed::new(format!("This policy contains invalid JSON: {error}."));
        serde_json::from_str(text).map_err(invalid)
    }

    pub fn into_object(self, what: &str) -> Result<Object, Malformed> {
        match self {
            Json::Object(members) => Ok(members),
            _ => Err(Malformed::syntax(format_args!("{what} must be an object."))),
        }
    }

    pub fn into_text(self, what: &str) -> Result<String, Malformed> {
        match self {
            Json::Text(text) => Ok(text),
            _ => Err(Malformed::syntax(format_args!("{what} must be a string."))),
        }
    }

    /// One item is a list, too.
    pub fn into_list(self) -> Vec<Json> {
        match self {
            Json::List(items) => items,
            item => vec![item],
        }
    }

    pub fn into_texts(self, what: &str) -> Result<Vec<String>, Malformed> {
        self.into_list()
            .into_iter()
            .map(|item| item.into_text(what))
            .collect()
    }
}

impl<'de> Deserialize<'de> for Json {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(JsonVisitor)
    }
}

struct JsonVisitor;

impl<'de> Visitor<'de> for JsonVisitor {
    type Value = Json;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Json, E> {
        Ok(Json::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Json, E> {
        Ok(Json::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Json, E> {
        Ok(Json::Number(value.to_string()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Json, E> {
        Ok(Json::Number(value.to_string()))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Json, E> {
        Ok(Json::Number(value.to_string()))
    }

    fn visit_str<E>(self, value: &str) -> Result<Json, E> {
        Ok(Json::Text(value.to_owned()))
    }

    fn visit_string<E>(self, value: String) -> Result<Json, E> {
        Ok(Json::Text(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Json, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element()? {
            list.push(item);
        }
        Ok(Json::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Json, A::Error> {
        let mut object = Object::new();
        while let Some(name) = members.next_key::<String>()? {
            if object.contains_key(&name) {
                return Err(A::Error::custom(format_args!("duplicate key \"{name}\"")));
            }
            object.insert(name, members.next_value()?);
        }
        Ok(Json::Object(object))
    }
}
