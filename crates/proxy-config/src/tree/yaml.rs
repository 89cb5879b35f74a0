//! YAML (and so JSON) text to trees, one per document.
//!
//! Owns limits against bombs: size, depth, and nodes with aliases counted. Never resolves a plain
//! word to a type, so that `no` stays a word (the field's type decides).

use std::collections::{HashMap, HashSet};

use serde_saphyr::granit_parser::{Event, Marker, Options, Parser, ScalarStyle, Tag};

use super::{DEPTH_MAX, Entry, INPUT_BYTES_MAX, NODES_MAX, Node, Place, Style, SyntaxFault, Value};

/// Reads every document of `text`; an empty document gives none.
pub(crate) fn parse_yaml(text: &str) -> Result<Vec<Node>, SyntaxFault> {
    if text.len() > INPUT_BYTES_MAX {
        let text = format!(
            "the input has {} bytes, more than the limit of {} MiB; split it",
            text.len(),
            INPUT_BYTES_MAX >> 20
        );
        return Err(SyntaxFault::new(text, Place::default()));
    }
    let mut options = Options::default();
    options.flow_nesting_limit = DEPTH_MAX;
    options.block_nesting_limit = DEPTH_MAX;
    let mut composer = Composer::default();
    for next in Parser::new_from_str_with_options(text, options) {
        let (event, span) = next.map_err(|error| {
            let text = format!("this is not valid YAML: {}; correct it", error.info());
            SyntaxFault::new(text, place(error.marker()))
        })?;
        composer.take(event, place(&span.start))?;
    }
    Ok(composer.documents)
}

fn place(marker: &Marker) -> Place {
    Place {
        line: marker.line(),
        column: marker.col() + 1,
    }
}

#[derive(Default)]
struct Composer {
    documents: Vec<Node>,
    open: Vec<Open>,
    anchors: HashMap<usize, Node>,
    nodes: usize,
}

/// A list or map whose end is not read yet.
struct Open {
    parts: Parts,
    place: Place,
    anchor: usize,
}

enum Parts {
    List(Vec<Node>),
    Map {
        entries: Vec<Entry>,
        seen: HashSet<Box<str>>,
        key: Option<(Box<str>, Place)>,
    },
}

impl Composer {
    fn take(&mut self, event: Event<'_>, place: Place) -> Result<(), SyntaxFault> {
        match event {
            Event::DocumentStart(..) => self.anchors.clear(),
            Event::Scalar(text, style, anchor, tag) => {
                let style = scalar_style(style, tag.as_deref(), place)?;
                self.close(Node::new(Value::Scalar(text.into(), style), place), anchor)?;
            }
            Event::SequenceStart(_, anchor, tag) => {
                refuse_tag(tag.as_deref(), place)?;
                self.start(Parts::List(Vec::new()), anchor, place)?;
            }
            Event::MappingStart(_, anchor, tag) => {
                refuse_tag(tag.as_deref(), place)?;
                let parts = Parts::Map {
                    entries: Vec::new(),
                    seen: HashSet::new(),
                    key: None,
                };
                self.start(parts, anchor, place)?;
            }
            Event::SequenceEnd | Event::MappingEnd => {
                let Some(Open {
                    parts,
                    place,
                    anchor,
                }) = self.open.pop()
                else {
                    return Ok(());
                };
                let value = match parts {
                    Parts::List(items) => Value::List(items),
                    Parts::Map { entries, .. } => Value::Map(entries),
                };
                self.close(Node::new(value, place), anchor)?;
            }
            Event::Alias(anchor) => {
                let Some(node) = self.anchors.get(&anchor).cloned() else {
                    let text = "this alias refers to a value that it is part of; write it out";
                    return Err(SyntaxFault::new(text, place));
                };
                self.nodes += node.count();
                self.close(Node { place, ..node }, 0)?;
            }
            _ => {}
        }
        Ok(())
    }

    fn start(&mut self, parts: Parts, anchor: usize, place: Place) -> Result<(), SyntaxFault> {
        if self.open.len() >= DEPTH_MAX {
            let text = format!("nested deeper than {DEPTH_MAX} levels; flatten it");
            return Err(SyntaxFault::new(text, place));
        }
        self.open.push(Open {
            parts,
            place,
            anchor,
        });
        Ok(())
    }

    /// Puts a whole node where it belongs.
    fn close(&mut self, node: Node, anchor: usize) -> Result<(), SyntaxFault> {
        self.nodes += 1;
        if self.nodes > NODES_MAX {
            let text = format!("more than {NODES_MAX} values, aliases counted; split the input");
            return Err(SyntaxFault::new(text, node.place));
        }
        if anchor != 0 {
            self.anchors.insert(anchor, node.clone());
        }
        match self.open.last_mut().map(|open| &mut open.parts) {
            None if node.is_nothing() => {}
            None => self.documents.push(node),
            Some(Parts::List(items)) => items.push(node),
            Some(Parts::Map { entries, seen, key }) => match key.take() {
                Some((key, place)) => entries.push(Entry { key, place, node }),
                None => {
                    let Value::Scalar(text, _) = node.value else {
                        let text = "a list or map cannot name a field; use a word";
                        return Err(SyntaxFault::new(text, node.place));
                    };
                    if !seen.insert(text.clone()) {
                        let text = format!("`{text}` is given twice; keep one of them");
                        return Err(SyntaxFault::new(text, node.place));
                    }
                    *key = Some((text, node.place));
                }
            },
        }
        Ok(())
    }
}

fn scalar_style(style: ScalarStyle, tag: Option<&Tag>, place: Place) -> Result<Style, SyntaxFault> {
    match tag {
        Some(tag) if tag.core_suffix() == Some("str") => Ok(Style::Quoted),
        Some(_) => refuse_tag(tag, place).map(|()| Style::Plain),
        None if style == ScalarStyle::Plain => Ok(Style::Plain),
        None => Ok(Style::Quoted),
    }
}

fn refuse_tag(tag: Option<&Tag>, place: Place) -> Result<(), SyntaxFault> {
    match tag {
        Some(tag) => {
            let text = format!(
                "the tag `{}` has no meaning here; remove it",
                tag.original()
            );
            Err(SyntaxFault::new(text, place))
        }
        None => Ok(()),
    }
}
