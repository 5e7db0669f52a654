//! The nesting depth of types. The decoder's recursion follows the types, so it must be bounded.

use std::collections::BTreeMap;

use crate::error::{Error, Result};
use crate::model::{Base, Model};

/// The largest number of structs within structs, by members and by chains. An error if a struct can
/// contain itself, because then a guest could nest without end.
pub fn depth(model: &Model) -> Result<usize> {
    let mut known = BTreeMap::new();
    let mut deepest = 0;
    for name in model.structs.keys() {
        deepest = deepest.max(visit(model, name, &mut known)?);
    }
    Ok(deepest)
}

/// The depths found so far; `None` while a type is being visited.
type Known<'a> = BTreeMap<&'a str, Option<usize>>;

fn visit<'a>(model: &'a Model, name: &'a str, known: &mut Known<'a>) -> Result<usize> {
    match known.get(name) {
        Some(Some(depth)) => return Ok(*depth),
        Some(None) => {
            return Err(Error::Registry(format!(
                "{name} can contain itself; exclude a struct of the cycle"
            )));
        }
        None => {}
    }
    known.insert(name, None);
    let members = match (model.structs.get(name), model.unions.get(name)) {
        (Some(entry), _) => entry.members.as_slice(),
        (None, Some(entry)) => entry.members.as_slice(),
        (None, None) => &[],
    };
    let inner = members.iter().filter_map(|m| match &m.base {
        Base::Struct(inner) | Base::Union(inner) => Some(inner),
        _ => None,
    });
    let chain = model.structs.get(name).map(|s| s.chain.iter());
    let mut deepest = 0;
    for inner in inner.chain(chain.into_iter().flatten()) {
        deepest = deepest.max(visit(model, inner, known)?);
    }
    known.insert(name, Some(deepest + 1));
    Ok(deepest + 1)
}
