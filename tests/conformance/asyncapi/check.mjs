// Judges an AsyncAPI document by the reference parser: check.mjs DIRECTORY_OF_THE_PARSER DOCUMENT.
// Fails when the document is not valid.
import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';

const [, , directory, path] = process.argv;
const { Parser } = createRequire(`${directory}/`)('@asyncapi/parser');
const { document, diagnostics } = await new Parser().parse(readFileSync(path, 'utf8'));
for (const { severity, code, path: place, message } of diagnostics) {
  // 0 is an error, 1 a warning; the rest are hints, such as that a newer AsyncAPI exists.
  if (severity <= 1) console.log(`FAILED  ${code} at ${place.join('.')}: ${message}`);
}
if (!document || diagnostics.some(({ severity }) => severity <= 1)) process.exit(1);
console.log(`AsyncAPI ${document.version()}, ${document.allMessages().all().length} messages: valid`);
