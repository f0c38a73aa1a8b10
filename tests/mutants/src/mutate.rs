//! The operators: each finds a place, and puts the mutant beside the original behind `crate::mutant::on(number)`.

use crate::sets::Set;
use crate::values::{self, Names};
use proc_macro2::{Span, TokenStream};
use quote::{ToTokens, quote};
use std::fmt;
use std::path::{Path, PathBuf};
use syn::spanned::Spanned;
use syn::visit_mut::{self, VisitMut};
use syn::{Attribute, BinOp, Block, Expr, Item, Pat, ReturnType, Signature, Type, TypeParamBound, UnOp, parse_quote};

/// One change of the program.
#[derive(Clone, Debug)]
pub struct Mutant {
    /// Its number, from 1.
    pub id: u32,
    file: String,
    line: usize,
    column: usize,
    function: String,
    what: String,
}

/// What stays the same while lines move: file, function, change, and which of several alike in that function.
impl fmt::Display for Mutant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}: {}", self.file, self.function, self.what)
    }
}

impl Mutant {
    /// Where it is: the file, from the repository's root.
    pub fn file(&self) -> &str {
        &self.file
    }

    /// Where it is: line and column, from 1.
    pub fn place(&self) -> (usize, usize) {
        (self.line, self.column)
    }
}

/// The files of a set, every mutant in them.
pub struct Mutated {
    pub mutants: Vec<Mutant>,
    /// Paths below the set's directory, and their text.
    pub files: Vec<(PathBuf, String)>,
}

/// Mutates all files of a set.
pub fn all(repository: &Path, set: &Set) -> Result<Mutated, String> {
    let root = repository.join(set.mutated);
    let mut parsed = Vec::new();
    for path in sources(&root)? {
        let text = std::fs::read_to_string(&path).map_err(|error| format!("{}: {error}", path.display()))?;
        let file = syn::parse_file(&text).map_err(|error| format!("{}: {error}", path.display()))?;
        parsed.push((path, file));
    }
    let names = names(parsed.iter().map(|(_, file)| file));
    let (mut mutants, mut files) = (Vec::new(), Vec::new());
    for (path, mut file) in parsed {
        let below = path.strip_prefix(&root).map_err(|error| error.to_string())?.to_owned();
        let mut operators = Operators {
            file: Path::new(set.mutated).join(&below).display().to_string(),
            names: &names,
            keep_const: set.keep_const,
            scope: Vec::new(),
            frozen: 0,
            mutants: &mut mutants,
        };
        operators.visit_file_mut(&mut file);
        files.push((below, file.to_token_stream().to_string()));
    }
    number_twins(&mut mutants);
    Ok(Mutated { mutants, files })
}

/// The Rust files below a directory, sorted.
fn sources(directory: &Path) -> Result<Vec<PathBuf>, String> {
    let shown = |error: std::io::Error| format!("{}: {error}", directory.display());
    let mut found = Vec::new();
    for entry in std::fs::read_dir(directory).map_err(shown)? {
        let path = entry.map_err(shown)?.path();
        if path.is_dir() {
            found.extend(sources(&path)?);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

fn names<'a>(files: impl Iterator<Item = &'a syn::File>) -> Names {
    let mut names = Names {
        integers: vec!["UnixMs".to_owned(), "Lsn".to_owned()],
        defaults: Vec::new(),
    };
    for item in files.flat_map(|file| &file.items) {
        let (ident, attributes) = match item {
            Item::Struct(item) => (&item.ident, &item.attrs),
            Item::Enum(item) => (&item.ident, &item.attrs),
            Item::Type(item) => {
                if matches!(&*item.ty, Type::Path(path) if path.path.is_ident("u64") || path.path.is_ident("u32")) {
                    names.integers.push(item.ident.to_string());
                }
                continue;
            }
            _ => continue,
        };
        let derives = attributes
            .iter()
            .filter(|attribute| attribute.path().is_ident("derive"));
        if derives
            .map(|derive| derive.to_token_stream().to_string())
            .any(|text| text.contains("Default"))
        {
            names.defaults.push(ident.to_string());
        }
    }
    names
}

/// Mutants that read alike get the number among them, so that each has a name.
fn number_twins(mutants: &mut [Mutant]) {
    let mut seen = std::collections::HashMap::new();
    for mutant in mutants {
        let count = seen.entry(mutant.to_string()).or_insert(0);
        *count += 1;
        if *count > 1 {
            mutant.what = format!("{} ({count})", mutant.what);
        }
    }
}

struct Operators<'a> {
    file: String,
    names: &'a Names,
    keep_const: &'a [&'a str],
    /// The functions and types around.
    scope: Vec<String>,
    /// In a constant, where nothing can be asked at run time.
    frozen: usize,
    mutants: &'a mut Vec<Mutant>,
}

impl Operators<'_> {
    fn add(&mut self, span: Span, what: String) -> u32 {
        let id = self.mutants.len() as u32 + 1;
        let start = span.start();
        self.mutants.push(Mutant {
            id,
            file: self.file.clone(),
            line: start.line,
            column: start.column + 1,
            function: self.scope.join("::"),
            what,
        });
        id
    }

    fn function(&mut self, attributes: &[Attribute], signature: &mut Signature, block: &mut Block) {
        if is_test(attributes) {
            return;
        }
        let keeps = self.keep_const.iter().any(|name| signature.ident == name);
        if !keeps {
            signature.constness = None;
        }
        self.scope.push(signature.ident.to_string());
        self.frozen += usize::from(signature.constness.is_some());
        if self.frozen == 0 && !block.stmts.is_empty() {
            self.returns(signature, block);
        }
        visit_mut::visit_block_mut(self, block);
        self.frozen -= usize::from(signature.constness.is_some());
        self.scope.pop();
    }

    fn returns(&mut self, signature: &Signature, block: &mut Block) {
        if let ReturnType::Type(_, ty) = &signature.output
            && is_iterator(ty)
        {
            let id = self.add(signature.ident.span(), "nothing is iterated over".to_owned());
            let body = block.clone();
            let mutated: Block = parse_quote!({
                let mutant = crate::mutant::on(#id);
                (#body).filter(move |_| !mutant)
            });
            *block = mutated;
            return;
        }
        let mut stops: Vec<syn::Stmt> = Vec::new();
        for value in values::of_return(&signature.output, self.names) {
            let id = self.add(signature.ident.span(), format!("returns {}", short(&value)));
            stops.push(parse_quote!(if crate::mutant::on(#id) { return #value; }));
        }
        block.stmts.splice(0..0, stops);
    }

    fn binary(&mut self, expr: &syn::ExprBinary) -> Option<Expr> {
        let others = others(&expr.op);
        let lets = has_let(&expr.left) || has_let(&expr.right);
        if others.is_empty() || lets {
            return None;
        }
        let (left, right, original) = (&expr.left, &expr.right, &expr.op);
        let is_assignment = others[0].ends_with('=') && !matches!(others[0], "==" | "!=" | "<=" | ">=");
        let mut branches = TokenStream::new();
        for other in others {
            let id = self.add(expr.op.span(), format!("{} for {}", other, short(original)));
            let op: BinOp = syn::parse_str(other).expect("an operator");
            let mutated = if is_assignment {
                quote!(#left #op #right)
            } else {
                quote!((#left) #op (#right))
            };
            branches.extend(quote!(if crate::mutant::on(#id) { #mutated } else));
        }
        let original = if is_assignment {
            quote!(#left #original #right)
        } else {
            quote!((#left) #original (#right))
        };
        Some(parse_quote!((#branches { #original })))
    }

    fn arms(&mut self, expr: &mut syn::ExprMatch) {
        let has_rest = expr
            .arms
            .iter()
            .any(|arm| matches!(arm.pat, Pat::Wild(_)) && arm.guard.is_none());
        for arm in &mut expr.arms {
            let span = arm.pat.span();
            if let Some((_, guard)) = &mut arm.guard
                && !has_let(guard)
            {
                let original = guard.clone();
                let (always, never) = (
                    self.add(span, "a guard is true".to_owned()),
                    self.add(span, "a guard is false".to_owned()),
                );
                **guard = parse_quote!(
                    (if crate::mutant::on(#always) { true } else if crate::mutant::on(#never) { false } else { #original })
                );
            }
            if has_rest && !matches!(arm.pat, Pat::Wild(_)) {
                let id = self.add(span, format!("no arm {}", short(&arm.pat)));
                let guard: Expr = match &arm.guard {
                    Some((_, guard)) if has_let(guard) => continue,
                    Some((_, guard)) => parse_quote!((!crate::mutant::on(#id) && (#guard))),
                    None => parse_quote!((!crate::mutant::on(#id))),
                };
                arm.guard = Some((<syn::Token![if]>::default(), Box::new(guard)));
            }
        }
    }
}

impl VisitMut for Operators<'_> {
    fn visit_item_fn_mut(&mut self, item: &mut syn::ItemFn) {
        self.function(&item.attrs, &mut item.sig, &mut item.block);
    }

    fn visit_impl_item_fn_mut(&mut self, item: &mut syn::ImplItemFn) {
        self.function(&item.attrs, &mut item.sig, &mut item.block);
    }

    fn visit_item_impl_mut(&mut self, item: &mut syn::ItemImpl) {
        let name = item.self_ty.to_token_stream().to_string();
        let name = match &item.trait_ {
            Some((_, path, _)) => format!("{} of {name}", short(path)),
            None => name,
        };
        self.scope.push(name.replace(' ', "").replace("of", " of "));
        visit_mut::visit_item_impl_mut(self, item);
        self.scope.pop();
    }

    fn visit_item_mod_mut(&mut self, item: &mut syn::ItemMod) {
        if !is_test(&item.attrs) {
            visit_mut::visit_item_mod_mut(self, item);
        }
    }

    fn visit_item_const_mut(&mut self, _: &mut syn::ItemConst) {}
    fn visit_item_static_mut(&mut self, _: &mut syn::ItemStatic) {}
    fn visit_impl_item_const_mut(&mut self, _: &mut syn::ImplItemConst) {}
    fn visit_type_mut(&mut self, _: &mut Type) {}
    fn visit_pat_mut(&mut self, _: &mut Pat) {}
    fn visit_expr_const_mut(&mut self, _: &mut syn::ExprConst) {}
    // Neither the length of an array nor what stands in a macro.
    fn visit_expr_repeat_mut(&mut self, _: &mut syn::ExprRepeat) {}

    fn visit_expr_mut(&mut self, expr: &mut Expr) {
        visit_mut::visit_expr_mut(self, expr);
        if self.frozen > 0 {
            return;
        }
        match expr {
            Expr::Binary(binary) => {
                if let Some(mutated) = self.binary(&binary.clone()) {
                    *expr = mutated;
                }
            }
            Expr::Unary(unary) if matches!(unary.op, UnOp::Not(_) | UnOp::Neg(_)) => {
                let id = self.add(unary.op.span(), format!("no {}", short(&unary.op)));
                let (operand, original) = (unary.expr.clone(), unary.clone());
                *expr = parse_quote!((if crate::mutant::on(#id) { #operand } else { #original }));
            }
            Expr::Match(matched) => self.arms(matched),
            _ => {}
        }
    }
}

/// What an operator is taken for, as `cargo-mutants` has it.
#[expect(clippy::match_same_arms, reason = "a table, a line for each operator")]
fn others(op: &BinOp) -> &'static [&'static str] {
    match op {
        BinOp::Eq(_) => &["!="],
        BinOp::Ne(_) => &["=="],
        BinOp::And(_) => &["||"],
        BinOp::Or(_) => &["&&"],
        BinOp::Lt(_) => &["==", ">", "<="],
        BinOp::Gt(_) => &["==", "<", ">="],
        BinOp::Le(_) => &[">"],
        BinOp::Ge(_) => &["<"],
        BinOp::Add(_) => &["-", "*"],
        BinOp::Sub(_) => &["+", "/"],
        BinOp::Mul(_) => &["+", "/"],
        BinOp::Div(_) => &["%", "*"],
        BinOp::Rem(_) => &["/", "+"],
        BinOp::Shl(_) => &[">>"],
        BinOp::Shr(_) => &["<<"],
        BinOp::BitAnd(_) => &["|", "^"],
        BinOp::BitOr(_) => &["&", "^"],
        BinOp::BitXor(_) => &["|", "&"],
        BinOp::AddAssign(_) => &["-=", "*="],
        BinOp::SubAssign(_) => &["+=", "/="],
        BinOp::MulAssign(_) => &["+=", "/="],
        BinOp::DivAssign(_) => &["%=", "*="],
        BinOp::RemAssign(_) => &["/=", "+="],
        BinOp::BitAndAssign(_) => &["|=", "^="],
        BinOp::BitOrAssign(_) => &["&=", "^="],
        BinOp::BitXorAssign(_) => &["|=", "&="],
        BinOp::ShlAssign(_) => &[">>="],
        BinOp::ShrAssign(_) => &["<<="],
        _ => &[],
    }
}

/// A condition with a `let` in it is no expression of its own.
fn has_let(expr: &Expr) -> bool {
    match expr {
        Expr::Let(_) => true,
        Expr::Binary(binary) => has_let(&binary.left) || has_let(&binary.right),
        Expr::Paren(paren) => has_let(&paren.expr),
        _ => false,
    }
}

fn is_test(attributes: &[Attribute]) -> bool {
    attributes.iter().any(|attribute| {
        attribute.path().is_ident("test")
            || (attribute.path().is_ident("cfg") && attribute.to_token_stream().to_string().contains("test"))
    })
}

/// `impl Iterator<Item = …>`, perhaps with a lifetime, and nothing more.
fn is_iterator(ty: &Type) -> bool {
    let Type::ImplTrait(bounds) = ty else { return false };
    bounds.bounds.iter().all(|bound| match bound {
        TypeParamBound::Trait(bound) => bound.path.segments.last().is_some_and(|last| last.ident == "Iterator"),
        TypeParamBound::Lifetime(_) => true,
        _ => false,
    })
}

/// Tokens as one reads them.
fn short(tokens: &impl ToTokens) -> String {
    let text = tokens.to_token_stream().to_string();
    let text = text
        .replace(":: std :: boxed :: ", "")
        .replace(":: std :: string :: ", "");
    let text = text
        .replace(":: std :: vec :: ", "")
        .replace(":: std :: default :: ", "");
    text.replace(" ::", "::")
        .replace(":: ", "::")
        .replace(" (", "(")
        .replace("( ", "(")
        .replace(" )", ")")
        .replace(" ,", ",")
}
