// Every limit of the editor on text and numbers from outside; the same values as in lmd/limits.py.
export const MAX_OBJECTS = 50;
export const CANVAS_MULTIPLE = 8; // pixels to a latent cell
export const LEAST_CANVAS = 64;
export const MOST_CANVAS = 16384;
export const MAX_COORDINATE = 1000; // of a box, in canvas sides
export const MAX_PHRASE = 1000; // characters, as are those below
export const MAX_TEXT = 20000;
export const MAX_EDITS = 500000;
