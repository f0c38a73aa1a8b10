//! What a function may return instead: small values of its type that a test should tell from the right ones.

use proc_macro2::TokenStream;
use quote::quote;
use syn::{GenericArgument, PathArguments, ReturnType, Type};

/// Values for the body of a function, none when its type has none that is known to exist. `aliases` are names of
/// integer types, `defaults` of types with a `Default`.
pub fn of_return(output: &ReturnType, names: &Names) -> Vec<TokenStream> {
    match output {
        ReturnType::Default => vec![quote!(())],
        ReturnType::Type(_, ty) => of_type(ty, names),
    }
}

/// What types are called here.
pub struct Names {
    /// Aliases of integers.
    pub integers: Vec<String>,
    /// Types that derive `Default`.
    pub defaults: Vec<String>,
}

const UNSIGNED: &[&str] = &["u8", "u16", "u32", "u64", "u128", "usize"];
const SIGNED: &[&str] = &["i8", "i16", "i32", "i64", "i128", "isize"];

fn of_type(ty: &Type, names: &Names) -> Vec<TokenStream> {
    match ty {
        Type::Tuple(tuple) if tuple.elems.is_empty() => vec![quote!(())],
        Type::Tuple(tuple) => {
            let elements: Vec<_> = tuple.elems.iter().map(|element| of_type(element, names)).collect();
            // One of each is enough: the product says little more.
            let firsts: Option<Vec<_>> = elements.iter().map(|values| values.first().cloned()).collect();
            firsts.map(|firsts| vec![quote!((#(#firsts),*))]).unwrap_or_default()
        }
        Type::Reference(reference) if reference.mutability.is_some() => Vec::new(),
        Type::Reference(reference) => match &*reference.elem {
            Type::Path(path) if path.path.is_ident("str") => vec![quote!(""), quote!("xyzzy")],
            Type::Slice(_) => vec![quote!(&[])],
            elem => of_type(elem, names)
                .into_iter()
                .map(|value| quote!(::std::boxed::Box::leak(::std::boxed::Box::new(#value))))
                .collect(),
        },
        Type::Path(path) => of_path(path, names),
        _ => Vec::new(),
    }
}

fn of_path(path: &syn::TypePath, names: &Names) -> Vec<TokenStream> {
    let Some(last) = path.path.segments.last() else {
        return Vec::new();
    };
    let name = last.ident.to_string();
    let argument = || match &last.arguments {
        PathArguments::AngleBracketed(list) => list.args.iter().find_map(|argument| match argument {
            GenericArgument::Type(ty) => Some(of_type(ty, names)),
            _ => None,
        }),
        _ => None,
    };
    let inner = |wrap: fn(TokenStream) -> TokenStream| argument().unwrap_or_default().into_iter().map(wrap).collect();
    match name.as_str() {
        "bool" => vec![quote!(true), quote!(false)],
        "String" => vec![quote!(::std::string::String::new()), quote!("xyzzy".to_owned())],
        "Option" => [vec![quote!(None)], inner(|value| quote!(Some(#value)))].concat(),
        "Result" => argument()
            .unwrap_or_else(|| vec![quote!(())])
            .into_iter()
            .map(|value| quote!(Ok(#value)))
            .collect(),
        "Vec" => [
            vec![quote!(::std::vec::Vec::new())],
            inner(|value| quote!(vec![#value])),
        ]
        .concat(),
        "VecDeque" | "HashMap" | "BTreeMap" | "PathBuf" | "Duration" => {
            vec![quote!(::std::default::Default::default())]
        }
        "Box" => inner(|value| quote!(::std::boxed::Box::new(#value))),
        _ if UNSIGNED.contains(&name.as_str()) || names.integers.contains(&name) => vec![quote!(0), quote!(1)],
        _ if SIGNED.contains(&name.as_str()) => vec![quote!(0), quote!(1), quote!(-1)],
        _ if names.defaults.contains(&name) => vec![quote!(::std::default::Default::default())],
        _ => Vec::new(),
    }
}
